//! The part of Go's `text/template` that `--format` uses: fields, pipelines, variables, `if`, `range`, `with`
//! and docker's functions, over JSON values.
//!
//! Source: <https://pkg.go.dev/text/template> and the docker CLI's `templates` package.

mod eval;
mod functions;
mod parse;
mod shape;

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
    /// The template asks for a field that the value cannot have.
    #[error("template: :1:{at}: executing \"\" at <{field}>: {what}")]
    Field {
        /// Where, in bytes from the start.
        at: usize,
        /// All of what it asks for.
        field: String,
        /// What is wrong with it.
        what: String,
    },
}

/// What a template is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// A row of a list: its fields are known, and what it lacks is null.
    Row,
    /// A thing as the engine describes it: a field that it cannot have is a mistake, as for docker.
    Thing,
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
    pub(crate) fn render(&self, data: &Value, of: Of) -> Result<String, TemplateError> {
        eval::render(&self.0, data, of)
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
        Template::parse(text)?.render(&sample(), Of::Row)
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
        assert!(matches!(render("{{.Name.First}}"), Err(TemplateError::Field { .. })));
        for template in ["{{index .Env 7}}", "{{range .Name}}x{{end}}", "{{len .Zero}}"] {
            assert!(matches!(render(template), Err(TemplateError::Render(_))), "{template}");
        }
    }

    #[test]
    fn fields_for_a_header() {
        let template = Template::parse("{{.ID}}\t{{.Names}} {{json .Ports}}").expect("a template");
        assert_eq!(template.fields(), ["ID", "Names", "Ports"]);
    }

    #[test]
    fn of_a_thing_only_fields_that_it_can_have() {
        let thing = json!({
            "Name": "/web", "State": {"Status": "running"}, "HostConfig": {"LogConfig": {"Type": "local", "Config": {}}},
            "Config": {"Labels": {"a": "b"}, "Volumes": null, "Cmd": null, "Entrypoint": ["x"]}, "NetworkSettings": {"Networks": {}},
        });
        let render = |text: &str| Template::parse(text)?.render(&thing, Of::Thing);
        for (template, expected) in [
            ("{{.State.Health}} {{json .State.Health}}", "<nil> null"),
            ("{{.Config.Cmd}} {{.Config.Entrypoint}} {{.Config.ExposedPorts}}", "[] [x] map[]"),
            ("{{.Config.Labels}} {{.Config.Labels.no}}", "map[a:b] <no value>"),
            ("{{index .Config.Labels \"no\"}}|{{index .Config.Labels \"a\"}}", "|b"),
            ("{{.Config.Volumes}} {{.Config.Volumes.no}}", "map[] <no value>"),
            ("{{.NetworkSettings.Networks.no.IPAddress}}", "<no value>"),
            ("{{.HostConfig.LogConfig}} {{.HostConfig.LogConfig.Config.x}}", "{local map[]} <no value>"),
            ("{{if .State.Health}}x{{end}}", ""),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
        for (template, expected) in [
            ("{{.Nope}}", r#":1:2: executing "" at <.Nope>: map has no entry for key "Nope""#),
            ("a {{.State.Nope}}", r#":1:10: executing "" at <.State.Nope>: map has no entry for key "Nope""#),
            ("{{json .Nope.X}}", r#":1:12: executing "" at <.Nope.X>: map has no entry for key "Nope""#),
            (
                "{{.Name.X}}",
                r#":1:7: executing "" at <.Name.X>: can't evaluate field X in type interface {}"#,
            ),
            (
                "{{.State.Health.Status}}",
                r#":1:8: executing "" at <.State.Health.Status>: map has no entry for key "Health""#,
            ),
        ] {
            let told = render(template).unwrap_err().to_string();
            assert_eq!(told, format!("template: {expected}"), "{template}");
        }
    }
}
