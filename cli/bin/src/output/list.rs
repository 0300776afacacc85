//! Lists of things: a table, a `--format`, or ids only.

use std::borrow::Cow;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::exit::Failure;
use crate::template::{Of, Template, TemplateError};

/// A column of a default table: its heading and the field it shows.
pub(crate) type Column = (&'static str, &'static str);

/// How a list is to be shown.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Style<'a> {
    /// The user's `--format`, if any: `table …`, `json`, or a template.
    pub(crate) format: Option<&'a str>,
    /// Only this field, a line each.
    pub(crate) only: Option<&'static str>,
}

/// One thing of a list.
pub(crate) trait Row {
    /// A field as a table shows it; empty if there is none.
    fn text(&self, field: &str) -> Cow<'_, str>;

    /// All fields, in the order of docker's table.
    fn fields(&self) -> Value;
}

impl Row for Value {
    fn text(&self, field: &str) -> Cow<'_, str> {
        match self.get(field) {
            Some(Self::String(text)) => text.into(),
            None | Some(Self::Null) => "".into(),
            Some(other) => other.to_string().into(),
        }
    }

    fn fields(&self) -> Value {
        self.clone()
    }
}

impl<R: Row> Row for &R {
    fn text(&self, field: &str) -> Cow<'_, str> {
        (**self).text(field)
    }

    fn fields(&self) -> Value {
        (**self).fields()
    }
}

/// Renders `rows`, which have all of the columns' fields and perhaps more. For a default table and for a single field each
/// row is needed for a moment only.
pub(crate) fn render<R: Row>(
    style: Style<'_>,
    columns: &[Column],
    headings: &[Column],
    rows: impl IntoIterator<Item = R>,
) -> Result<String> {
    let rows = rows.into_iter();
    if let Some(field) = style.only {
        return Ok(rows.flat_map(|row| [row.text(field).into_owned(), "\n".to_owned()]).collect());
    }
    let format = match style.format {
        None | Some("table") => {
            let cells = |row: R| columns.iter().map(|(_, field)| row.text(field).into_owned()).collect();
            let heading = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
            return Ok(table(heading, rows.map(cells).collect()));
        }
        Some("json") => return Ok(rows.map(|row| sorted(row.fields()).to_string() + "\n").collect()),
        Some(format) => format,
    };
    let rows: Vec<Value> = rows.map(|row| row.fields()).collect();
    let Some(format) = format.strip_prefix("table ") else {
        let template = template(format, &rows)?;
        let line = |row: Value| Ok(template.render(&sorted(row), Of::Row).context("--format")? + "\n");
        return rows.into_iter().map(line).collect();
    };
    let template = template(format, &rows)?;
    let heading = |field: &String| {
        let known = columns.iter().chain(headings).find(|(_, f)| f == field);
        known.map_or_else(|| field.to_uppercase(), |(heading, _)| (*heading).to_owned())
    };
    let line = |row: &Value| {
        let line = template.render(row, Of::Row).context("--format")?;
        Ok(line.split('\t').map(str::to_owned).collect())
    };
    let lines = rows.iter().map(line).collect::<Result<_>>()?;
    Ok(table(template.fields().iter().map(heading).collect(), lines))
}

/// A row with its fields in the order of their names, as docker writes them into JSON.
fn sorted(mut row: Value) -> Value {
    if let Value::Object(fields) = &mut row {
        fields.sort_keys();
    }
    row
}

/// A template for rows, all of whose fields they have.
fn template(format: &str, rows: &[Value]) -> Result<Template> {
    let template = Template::parse(&unescape(format)).context("--format")?;
    let Some(Value::Object(row)) = rows.first() else { return Ok(template) };
    let has = |field: &String| rows.iter().any(|row| row.get(field).is_some());
    if let Some(missing) = template.roots().iter().find(|field| !has(field)) {
        let known: Vec<&str> = row.keys().map(String::as_str).collect();
        bail!("--format: there is no field {missing}; there are {}", known.join(", "));
    }
    Ok(template)
}

/// Whether a list of this format shows a field that its default table does not; rather yes than no.
pub(crate) fn asks_for(format: Option<&str>, field: &str) -> bool {
    let lone_dot =
        |format: &str| format.split('.').skip(1).any(|rest| !rest.starts_with(char::is_alphabetic));
    format.is_some_and(|format| {
        format == "json" || format.contains(field) || format.contains('$') || lone_dot(format)
    })
}

/// What a template that cannot be parsed is to docker.
const NO_TEMPLATE: u8 = 64;

/// How things that are shown one by one are to be shown, understood before the first of them is there.
#[derive(Debug)]
pub(crate) enum OneFormat {
    /// As JSON, on a line.
    Json,
    /// As the user's template says.
    Template(Template),
}

impl OneFormat {
    /// A `--format`.
    pub(crate) fn parse(format: &str) -> Result<Self> {
        if matches!(format, "json" | "{{json .}}" | "{{ json . }}") {
            return Ok(Self::Json);
        }
        Ok(Self::Template(Template::parse(&unescape(format)).map_err(|error| failure(error, NO_TEMPLATE))?))
    }

    /// One thing.
    pub(crate) fn render(&self, value: &Value) -> Result<String> {
        match self {
            Self::Json => Ok(value.to_string()),
            Self::Template(template) => {
                Ok(template.render(value, Of::Thing).map_err(|error| failure(error, 1))?)
            }
        }
    }
}

fn failure(error: TemplateError, code: u8) -> Failure {
    match error {
        TemplateError::Parse { what, .. } => {
            Failure { message: format!("template parsing error: template: :1: {what}"), code }
        }
        other => Failure { message: format!("template parsing error: {other}"), code },
    }
}

/// Renders one thing: `--format`, or pretty JSON in a list as `inspect` shows it.
pub(crate) fn render_one(format: &str, value: &Value) -> Result<String> {
    OneFormat::parse(format)?.render(value)
}

/// A shell user writes `\t` and `\n`.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// Columns as wide as their widest cell and three blanks, at least ten (docker's tabwriter).
pub(crate) fn table(heading: Vec<String>, rows: Vec<Vec<String>>) -> String {
    columns(heading, rows, 10)
}

/// The same with columns of at least this width.
pub(crate) fn columns(heading: Vec<String>, rows: Vec<Vec<String>>, least: usize) -> String {
    let mut lines = vec![heading];
    lines.extend(rows);
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| {
            lines.iter().filter_map(|l| l.get(i)).map(|c| c.chars().count() + 3).max().unwrap_or(0).max(least)
        })
        .collect();
    let mut out = String::new();
    for line in lines {
        let last = line.len().saturating_sub(1);
        for (i, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if i < last {
                let mut missing = widths[i].saturating_sub(cell.chars().count());
                while missing > 0 {
                    let blanks = &BLANKS[..missing.min(BLANKS.len())];
                    out.push_str(blanks);
                    missing -= blanks.len();
                }
            }
        }
        out.push('\n');
    }
    out
}

/// What columns are filled up with.
const BLANKS: &str = "                                ";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows() -> Vec<Value> {
        vec![json!({"ID": "1", "Name": "a long name here"}), json!({"ID": "22", "Name": "b"})]
    }

    const COLUMNS: &[Column] = &[("THE ID", "ID"), ("NAME", "Name")];

    #[test]
    fn what_a_format_asks_for() {
        let asks = |format| asks_for(Some(format), "CreatedAt");
        for format in ["json", "{{json .}}", "{{.CreatedAt}}", "{{range $k, $v := .}}{{end}}", "{{ . }}"] {
            assert!(asks(format), "{format}");
        }
        assert!(!asks("{{.ID}} {{.Names}}") && !asks("table {{.ID}}") && !asks("table"));
        assert!(!asks_for(None, "CreatedAt"));
    }

    #[test]
    fn forms() {
        let show = |style| render(style, COLUMNS, &[], rows()).expect("renders");
        assert_eq!(show(Style::default()), "THE ID    NAME\n1         a long name here\n22        b\n");
        assert_eq!(show(Style { only: Some("ID"), format: None }), "1\n22\n");
        assert_eq!(show(Style { format: Some("{{.Name}}"), only: None }), "a long name here\nb\n");
        assert_eq!(
            show(Style { format: Some("table {{.Name}}\\t{{.ID}}"), only: None }),
            "NAME               THE ID\na long name here   1\nb                  22\n"
        );
        assert!(show(Style { format: Some("json"), only: None }).starts_with("{\"ID\":\"1\""));
        let missing = Style { format: Some("{{.Nope}}"), only: None };
        let message = render(missing, COLUMNS, &[], rows()).unwrap_err().to_string();
        assert_eq!(message, "--format: there is no field Nope; there are ID, Name");
        assert!(render(Style { format: Some("{{"), only: None }, COLUMNS, &[], rows()).is_err());
    }
}
