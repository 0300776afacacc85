//! The part of Go's `text/template` that `--format` uses: fields, pipelines, variables, `if`, `range`, `with`
//! and docker's functions, over JSON values.
//!
//! Source: <https://pkg.go.dev/text/template> and the docker CLI's `templates` package.

mod eval;
mod functions;
mod parse;

use serde_json::Value;
use thiserror::Error;

use parse::Node;

/// Why a template is refused or cannot be rendered.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// The text is not a template.
    #[error("template parsing error: at character {at}: {what}")]
    Parse {
        /// Where, in characters from the start.
        at: usize,
        /// What is wrong there.
        what: String,
    },
    /// The template asks for something that the value does not have.
    #[error("template: {0}")]
    Render(String),
}

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template(Vec<Node>);

impl Template {
    /// Parses `text`.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        parse::parse(text).map(Self)
    }

    /// Renders it over `data`, which is `.` and `$`.
    pub(crate) fn render(&self, data: &Value) -> Result<String, TemplateError> {
        eval::render(&self.0, data)
    }

    /// The fields it asks for of what it is given, not of parts of it.
    pub(crate) fn roots(&self) -> Vec<String> {
        let mut roots = Vec::new();
        parse::collect_roots(&self.0, &mut roots);
        roots
    }

    /// The names of the top-level fields it asks for, in order: what a table's header line shows.
    pub(crate) fn fields(&self) -> Vec<String> {
        let mut fields = Vec::new();
        parse::collect_fields(&self.0, &mut fields);
        fields
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sample() -> Value {
        json!({
            "Name": "/web", "Id": "0123456789abcdef", "Empty": "", "Zero": 0, "Nothing": null,
            "State": {"Pid": 42, "Running": true, "Ratio": 0.5},
            "Env": ["A=1", "B=2"],
            "Labels": {"a": "b", "com.x/y": "z"},
            "Row": {"Labels": "a=1,b=2,3,c=4"},
        })
    }

    fn render(text: &str) -> Result<String, TemplateError> {
        Template::parse(text)?.render(&sample())
    }

    #[test]
    fn fields_and_text() {
        for (template, expected) in [
            ("plain", "plain"),
            ("{{.Name}}", "/web"),
            ("a{{ .State.Pid }}b", "a42b"),
            ("{{.State.Running}} {{.State.Ratio}}", "true 0.5"),
            ("{{.Nothing}}", "<no value>"),
            ("{{.Missing}}", "<no value>"),
            ("{{.Env}}", "[A=1 B=2]"),
            ("{{.Labels}}", "map[a:b com.x/y:z]"),
            ("{{(.State).Pid}}", "42"),
            ("{{ .Name -}}  x", "/webx"),
            ("x  {{- .Name}}", "x/web"),
            ("{{/* a comment */}}x", "x"),
            ("{{\"a\\tb\"}}{{`c`}}", "a\tbc"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn control() {
        for (template, expected) in [
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if .Empty}}full{{else if .Zero}}zero{{else}}none{{end}}", "none"),
            ("{{range .Env}}[{{.}}]{{end}}", "[A=1][B=2]"),
            ("{{range $i, $e := .Env}}{{$i}}:{{$e}} {{end}}", "0:A=1 1:B=2 "),
            ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=b;com.x/y=z;"),
            ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
            ("{{with .State}}{{.Pid}}{{$.Name}}{{end}}", "42/web"),
            ("{{$x := .State.Pid}}{{$x}}", "42"),
            ("{{$s := .State}}{{$s.Pid}}", "42"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn functions_and_pipelines() {
        for (template, expected) in [
            ("{{json .Env}}", r#"["A=1","B=2"]"#),
            ("{{json .Labels}}", r#"{"a":"b","com.x/y":"z"}"#),
            ("{{.Env | json}}", r#"["A=1","B=2"]"#),
            ("{{index .Labels \"com.x/y\"}}", "z"),
            ("{{.Row.Label \"b\"}}|{{.Row.Label \"no\"}}", "2,3|"),
            ("{{index .Env 1}}", "B=2"),
            ("{{len .Env}}", "2"),
            ("{{join .Env \",\"}}", "A=1,B=2"),
            ("{{upper .Name}} {{lower \"ABC\"}} {{title \"abc\"}}", "/WEB abc Abc"),
            ("{{truncate .Id 4}}", "0123"),
            ("{{slice .Id 2 5}}", "234"),
            ("{{split \"a:b\" \":\"}}", "[a b]"),
            ("{{eq .State.Pid 42}} {{ne .Name \"x\"}} {{lt 1 2}} {{ge 1 2}}", "true true true false"),
            ("{{and .Name .Empty}}|{{or .Empty .Name}}|{{not .Zero}}", "|/web|true"),
            ("{{printf \"%s-%d-%v-%q\" .Name .State.Pid .Zero .Name}}", "/web-42-0-\"/web\""),
            ("{{println .Name}}", "/web\n"),
            ("{{pad .Name 1 2}}|", " /web  |"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for template in [
            "{{",
            "{{.Name",
            "{{if .Name}}",
            "{{end}}",
            "{{nosuch .Name}}",
            "{{.Name.}}",
            "{{range}}x{{end}}",
        ] {
            assert!(matches!(render(template), Err(TemplateError::Parse { .. })), "{template}");
        }
        for template in ["{{.Name.First}}", "{{index .Env 7}}", "{{range .Name}}x{{end}}", "{{len .Zero}}"] {
            assert!(matches!(render(template), Err(TemplateError::Render(_))), "{template}");
        }
    }

    #[test]
    fn fields_for_a_header() {
        let template = Template::parse("{{.ID}}\t{{.Names}} {{json .Ports}}").expect("a template");
        assert_eq!(template.fields(), ["ID", "Names", "Ports"]);
    }
}
