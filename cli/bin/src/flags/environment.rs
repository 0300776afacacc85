//! `-e`, `--env-file`, `--label`, `--label-file` and other `key=value` lists.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The environment of a container: files first, then flags. A name alone takes the value from `outer`, and is left
/// out where that has none.
pub(crate) fn variables(
    files: &[impl AsRef<Path>],
    flags: &[String],
    outer: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for file in files {
        for (line, entry) in lines(file.as_ref())? {
            let name = entry.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                bail!("{}:{line}: {name:?} is no name of a variable", file.as_ref().display());
            }
            out.extend(resolve(&entry, &outer));
        }
    }
    for flag in flags {
        if flag.is_empty() || flag.starts_with('=') {
            bail!("invalid environment variable: {flag:?}: expected NAME=value or NAME");
        }
        out.extend(resolve(flag, &outer));
    }
    Ok(out)
}

fn resolve(entry: &str, outer: &impl Fn(&str) -> Option<String>) -> Option<String> {
    if entry.contains('=') {
        Some(entry.to_owned())
    } else {
        outer(entry).map(|value| format!("{entry}={value}"))
    }
}

/// Labels: files first, then flags. A name alone has an empty value.
pub(crate) fn labels(files: &[impl AsRef<Path>], flags: &[String]) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for file in files {
        out.extend(lines(file.as_ref())?.into_iter().map(|(_, entry)| pair(&entry)));
    }
    out.extend(flags.iter().map(|flag| pair(flag)));
    Ok(out)
}

/// `key=value`, or `key` with an empty value.
pub(crate) fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// `key=value` flags as a map; a missing `=` is a mistake.
pub(crate) fn pairs(flag: &str, values: &[String]) -> Result<BTreeMap<String, String>> {
    let pairs = values.iter().map(|value| match value.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("invalid argument {value:?} for {flag}: expected key=value"),
    });
    pairs.collect()
}

/// The lines of a file with their numbers, without blank ones and comments.
fn lines(file: &Path) -> Result<Vec<(usize, String)>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim_start().to_owned()));
    Ok(lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_labels() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "# comment\n\nA=1\n  B = x\nOUTER\nGONE\n").expect("write");
        let outer = |name: &str| (name == "OUTER").then(|| "o".to_owned());
        let none: [&Path; 0] = [];
        assert!(variables(&[file.path()], &[], outer).is_err(), "a blank in a name");
        std::fs::write(file.path(), "A=1\nOUTER\nGONE\n").expect("write");
        let got = variables(&[file.path()], &["C=3".into(), "OUTER".into()], outer).expect("valid");
        assert_eq!(got, ["A=1", "OUTER=o", "C=3", "OUTER=o"]);
        assert!(variables(&none, &["=x".into()], outer).is_err());
        let labels = labels(&none, &["a=b=c".into(), "d".into()]).expect("valid");
        assert_eq!(labels, BTreeMap::from([("a".into(), "b=c".into()), ("d".into(), String::new())]));
        assert!(pairs("--sysctl", &["x".into()]).is_err());
    }
}
