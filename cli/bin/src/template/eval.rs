//! Nodes over a value.

use serde_json::Value;

use super::functions::display;
use super::parse::{Command, Node, Operand, Pipe};
use super::{Of, TemplateError, shape};

/// The variables in force, innermost last, and what all of it is about.
struct Scope {
    variables: Vec<(String, Value)>,
    of: Of,
}

pub(super) fn render(nodes: &[Node], data: &Value, of: Of) -> Result<String, TemplateError> {
    let mut scope = Scope { variables: vec![(String::new(), data.clone())], of };
    let mut out = String::new();
    block(nodes, data, &mut scope, &mut out)?;
    Ok(out)
}

fn block(nodes: &[Node], dot: &Value, scope: &mut Scope, out: &mut String) -> Result<(), TemplateError> {
    let depth = scope.variables.len();
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Action { assign, pipe } => {
                let value = evaluate(pipe, dot, scope)?;
                match assign {
                    Some(name) => scope.variables.push((name.clone(), value)),
                    None => out.push_str(&shown(pipe, &value, scope.of)),
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
    scope.variables.truncate(depth);
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
        let depth = scope.variables.len();
        if let Some(key) = key {
            scope.variables.push((key.clone(), index));
        }
        if let Some(value) = value {
            scope.variables.push((value.clone(), item.clone()));
        }
        block(body, &item, scope, out)?;
        scope.variables.truncate(depth);
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

/// A value as Go shows it: it knows of what type a field is.
fn shown(pipe: &Pipe, value: &Value, of: Of) -> String {
    match (of, pipe.as_slice()) {
        (Of::Thing, [Command::Value(Operand::Field(path, _) | Operand::Variable(_, path, _))]) => {
            shape::display(value, path)
        }
        (Of::Thing, [Command::Call(function, _)]) if value.is_null() && function.looks_up() => String::new(),
        _ => display(value),
    }
}

fn operand(operand: &Operand, dot: &Value, scope: &Scope) -> Result<Value, TemplateError> {
    match operand {
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Field(path, at) => walk(dot.clone(), path, *at, scope.of),
        Operand::Variable(name, path, at) => {
            let found = scope.variables.iter().rev().find(|(n, _)| n == name);
            let (_, value) =
                found.ok_or_else(|| TemplateError::Render(format!("undefined variable ${name}")))?;
            walk(value.clone(), path, *at, scope.of)
        }
        Operand::Nested(pipe, path) => walk(evaluate(pipe, dot, scope)?, path, 0, scope.of),
    }
}

/// Follows field names. A field of a scalar is a mistake, and so is one that a thing cannot have; what only is not there, as in
/// a map, is null.
fn walk(mut value: Value, path: &[String], at: usize, of: Of) -> Result<Value, TemplateError> {
    let mistake = |what: String| TemplateError::Field { at, field: format!(".{}", path.join(".")), what };
    let mut missed = of == Of::Row;
    for (depth, name) in path.iter().enumerate() {
        let (before, last) = (&path[..depth], depth + 1 == path.len());
        value = match value {
            Value::Object(mut map) => match map.remove(name) {
                Some(value) => value,
                None if missed || shape::is_map(before) => {
                    missed = true;
                    Value::Null
                }
                None => shape::left_out(&map, before, name)
                    .filter(|_| last)
                    .ok_or_else(|| mistake(format!("map has no entry for key {name:?}")))?,
            },
            Value::Null if missed || shape::is_map(before) => {
                missed = true;
                Value::Null
            }
            Value::Null => return Err(mistake(format!("nil pointer evaluating interface {{}}.{name}"))),
            _ => return Err(mistake(format!("can't evaluate field {name} in type interface {{}}"))),
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
