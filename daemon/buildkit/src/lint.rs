//! `docker build --check`: what is wrong with a Dockerfile, and what is not as it should be, in the form of BuildKit's
//! `frontend/subrequests/lint`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use berth_dockerfile_parser::diagnostic::Diagnostic;
use berth_dockerfile_parser::lint::{self, Environment};
use berth_oci::{Platform, Reference};
use bytes::Bytes;
use serde_json::{Value, json};
use tonic::Status;

use crate::jobs::Job;
use crate::protocol::frontend::Result as Solved;
use crate::serve::Shared;
use crate::{attributes, build};

/// What the request is called.
pub(crate) const REQUEST: &str = "frontend.lint";
/// Version of the form.
const VERSION: &str = "1.0.0";

/// Checks the client's Dockerfile.
pub(crate) async fn check(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    attributes: &HashMap<String, String>,
) -> Result<Solved, Status> {
    let asked = attributes::read(attributes)?;
    let (text, ignored) = build::dockerfile(shared, job, &asked).await?;
    let arguments = attributes
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("build-arg:")?.to_owned(), value.clone())));
    let results = results(&asked.filename, &text, &ignored, &arguments.collect(), &asked.options.target);
    let good = results["warnings"].as_array().is_some_and(Vec::is_empty) && results["buildError"].is_null();
    let metadata = [
        ("result.json", results.to_string()),
        ("result.txt", lines(&results)),
        ("result.statuscode", if good { "0" } else { "1" }.to_owned()),
        ("version", VERSION.to_owned()),
    ];
    let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), Bytes::from(value)));
    Ok(Solved { result: None, metadata: metadata.collect() })
}

fn results(
    name: &str,
    text: &[u8],
    ignored: &[String],
    arguments: &BTreeMap<String, String>,
    target: &str,
) -> Value {
    let program = berth_dockerfile_parser::read(&String::from_utf8_lossy(text));
    let sources =
        json!([{ "filename": name, "language": "Dockerfile", "data": BASE64_STANDARD.encode(text) }]);
    if let Some(error) = program.errors().next() {
        let error = json!({ "message": error.message, "location": location(error) });
        return json!({ "warnings": [], "sources": sources, "buildError": error });
    }
    let host = Platform::host().to_string();
    let parts = ["OS", "ARCH", "VARIANT", "OSVERSION"];
    let predefined = parts
        .iter()
        .flat_map(|part| ["TARGET", "BUILD"].map(|side| (format!("{side}{part}"), String::new())))
        .chain(["TARGETPLATFORM", "BUILDPLATFORM"].map(|name| (name.to_owned(), host.clone())))
        .chain([("TARGETSTAGE".to_owned(), target.to_owned())])
        .collect();
    let environment = Environment {
        build_args: arguments,
        predefined: &predefined,
        ignore: ignored,
        stages: None,
        // Nothing is pulled for a check: what an image brings is not known.
        image_env: &|_| None,
        is_image_name: &|name| name == "scratch" || Reference::parse(name).is_ok(),
    };
    let warnings: Vec<Value> = lint::check(&program, &environment)
        .iter()
        .map(|warning| {
            json!({
                "ruleName": warning.rule.unwrap_or_default(),
                "detail": warning.message,
                "location": location(warning),
            })
        })
        .collect();
    json!({ "warnings": warnings, "sources": sources })
}

fn location(diagnostic: &Diagnostic) -> Value {
    let (start, end) = (json!({ "line": diagnostic.lines.start }), json!({ "line": diagnostic.lines.end }));
    json!({ "ranges": [{ "start": start, "end": end }] })
}

/// For clients that do not know the form.
fn lines(results: &Value) -> String {
    let warnings = results["warnings"].as_array().into_iter().flatten();
    let line = |warning: &Value| {
        let text = |field: &str| warning[field].as_str().unwrap_or_default().to_owned();
        format!("WARNING: {}\n{}\n", text("ruleName"), text("detail"))
    };
    warnings.map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_and_errors_have_their_places() {
        let of = |text: &str| results("Dockerfile", text.as_bytes(), &[], &BTreeMap::new(), "");
        let found = of("FROM busybox AS Base\nCMD true\n");
        let rules: Vec<_> = found["warnings"].as_array().unwrap().iter().map(|w| &w["ruleName"]).collect();
        assert_eq!(rules, ["StageNameCasing", "JSONArgsRecommended"]);
        assert_eq!(found["warnings"][1]["location"]["ranges"][0]["start"]["line"], 2);
        assert_eq!(found["sources"][0]["filename"], "Dockerfile");
        let broken = of("FROM\n");
        assert_eq!(broken["buildError"]["location"]["ranges"][0]["start"]["line"], 1);
        assert!(lines(&found).starts_with("WARNING: StageNameCasing\n"));
    }
}
