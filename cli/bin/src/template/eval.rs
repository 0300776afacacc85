//! Nodes over a value.

use serde_json::Value;

use super::TemplateError;
use super::functions::display;
use super::parse::{Command, Node, Operand, Pipe};

/// The variables in force, innermost last.
type Scope = Vec<(String, Value)>;

pub(super) fn render(nodes: &[Node], data: &Value) -> Result<String, TemplateError> {
    let mut scope = vec![(String::new(), data.clone())];
    let mut out = String::new();
    block(nodes, data, &mut scope, &mut out)?;
    Ok(out)
}

fn block(nodes: &[Node], dot: &Value, scope: &mut Scope, out: &mut String) -> Result<(), TemplateError> {
    let depth = scope.len();
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Action { assign, pipe } => {
                let value = evaluate(pipe, dot, scope)?;
                match assign {
                    Some(name) => scope.push((name.clone(), value)),
                    None => out.push_str(&display(&value)),
                }
            }
            Node::If { pipe, then, otherwise } => {
                let chosen = if truth(&evaluate(pipe, dot, scope)?) { then } else { otherwise };
                block(chosen, dot, scope, out)?;
            }
            Node::With { pipe, then, otherwise } => {
                let value = evaluate(pipe, dot, scope)?;
                if truth(&value) {
                    block(then, &value, scope, out)?;
                } else {
                    block(otherwise, dot, scope, out)?;
                }
            }
            Node::Range { .. } => range(node, dot, scope, out)?,
        }
    }
    scope.truncate(depth);
    Ok(())
}

fn range(node: &Node, dot: &Value, scope: &mut Scope, out: &mut String) -> Result<(), TemplateError> {
    let Node::Range { key, value, pipe, body, otherwise } = node else { return Ok(()) };
    let items: Vec<(Value, Value)> = match evaluate(pipe, dot, scope)? {
        Value::Null => Vec::new(),
        Value::Array(items) => items.into_iter().enumerate().map(|(i, v)| (Value::from(i), v)).collect(),
        Value::Object(map) => {
            let mut items: Vec<_> = map.into_iter().collect();
            items.sort_by(|a, b| a.0.cmp(&b.0));
            items.into_iter().map(|(k, v)| (Value::String(k), v)).collect()
        }
        other => return Err(TemplateError::Render(format!("range can't iterate over {}", display(&other)))),
    };
    if items.is_empty() {
        return block(otherwise, dot, scope, out);
    }
    for (index, item) in items {
        let depth = scope.len();
        if let Some(key) = key {
            scope.push((key.clone(), index));
        }
        if let Some(value) = value {
            scope.push((value.clone(), item.clone()));
        }
        block(body, &item, scope, out)?;
        scope.truncate(depth);
    }
    Ok(())
}

fn evaluate(pipe: &Pipe, dot: &Value, scope: &Scope) -> Result<Value, TemplateError> {
    let mut last: Option<Value> = None;
    for command in pipe {
        last = Some(match command {
            Command::Call(function, operands) => {
                let mut arguments =
                    operands.iter().map(|o| operand(o, dot, scope)).collect::<Result<Vec<_>, _>>()?;
                arguments.extend(last);
                function.call(&arguments)?
            }
            Command::Value(value) => operand(value, dot, scope)?,
        });
    }
    Ok(last.unwrap_or(Value::Null))
}

fn operand(operand: &Operand, dot: &Value, scope: &Scope) -> Result<Value, TemplateError> {
    match operand {
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Field(path) => walk(dot.clone(), path),
        Operand::Variable(name, path) => {
            let found = scope.iter().rev().find(|(n, _)| n == name);
            let (_, value) =
                found.ok_or_else(|| TemplateError::Render(format!("undefined variable ${name}")))?;
            walk(value.clone(), path)
        }
        Operand::Nested(pipe, path) => walk(evaluate(pipe, dot, scope)?, path),
    }
}

/// Follows field names. A missing one is null, as in a Go map; a field of a scalar is a mistake.
fn walk(mut value: Value, path: &[String]) -> Result<Value, TemplateError> {
    for name in path {
        value = match value {
            Value::Object(mut map) => map.remove(name).unwrap_or(Value::Null),
            Value::Null => Value::Null,
            other => {
                return Err(TemplateError::Render(format!(
                    "can't evaluate field {name} in {}",
                    display(&other)
                )));
            }
        };
    }
    Ok(value)
}

/// Go's idea of truth: not the zero value, not empty.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}
