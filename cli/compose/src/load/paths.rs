//! Relative paths become absolute ones.

use std::path::{Component, Path as FilePath, PathBuf};

use super::Fault;
use crate::yaml::{Map, Node, Path, Value};

#[derive(Debug, Clone, Copy)]
enum Kind {
    File,
    /// A build context: may be remote, an image or a service.
    Context,
    /// A file, with symbolic links followed.
    Watched,
    Mount,
    VolumeOptions,
}

const PATHS: &[(&str, Kind)] = &[
    ("services.*.build.context", Kind::Context),
    ("services.*.build.additional_contexts.*", Kind::Context),
    ("services.*.build.ssh.*", Kind::File),
    ("services.*.env_file.*.path", Kind::File),
    ("services.*.label_file.*", Kind::File),
    ("services.*.extends.file", Kind::File),
    ("services.*.develop.watch.*.path", Kind::Watched),
    ("services.*.volumes.*", Kind::Mount),
    ("configs.*.file", Kind::File),
    ("secrets.*.file", Kind::File),
    ("volumes.*", Kind::VolumeOptions),
];

/// Makes the paths of a tree absolute, as seen from `base`; `home` stands for `~`.
pub(crate) fn resolve(node: &mut Node, base: &FilePath, home: Option<&str>) -> Result<(), Fault> {
    walk(node, &Path::root(), base, home)
}

fn walk(node: &mut Node, path: &Path, base: &FilePath, home: Option<&str>) -> Result<(), Fault> {
    if let Some((_, kind)) = PATHS.iter().find(|(pattern, _)| path.matches(pattern)) {
        return one(node, *kind, path, base, home);
    }
    match &mut node.value {
        Value::Map(map) => {
            map.iter_mut().try_for_each(|(key, node)| walk(node, &path.join(key.as_str()), base, home))
        }
        Value::List(list) => {
            let mut items = list.iter_mut().enumerate();
            items.try_for_each(|(index, node)| walk(node, &path.join(index.to_string()), base, home))
        }
        _ => Ok(()),
    }
}

fn one(node: &mut Node, kind: Kind, path: &Path, base: &FilePath, home: Option<&str>) -> Result<(), Fault> {
    let mark = node.mark;
    match (kind, &mut node.value) {
        (Kind::File, Value::Text(text)) => *text = absolute(text, base, home),
        (Kind::Context, Value::Text(text)) if !is_remote(text) => *text = absolute(text, base, home),
        (Kind::Watched, Value::Text(text)) => {
            *text = absolute(text, base, home);
            // What is not there yet has no links to follow.
            if let Ok(real) = FilePath::new(text.as_str()).canonicalize() {
                *text = real.to_string_lossy().into_owned();
            }
        }
        (Kind::Mount, Value::Map(mount)) if text(mount, "type") == Some("bind") => {
            match mount.get_mut("source") {
                Some(Node { value: Value::Text(source), .. }) => {
                    if !is_windows_absolute(source) {
                        *source = within(source, base, home);
                    }
                }
                _ => {
                    let message = r#"invalid mount config for type "bind": field Source must not be empty"#;
                    return Err(Fault::new(mark, path, message));
                }
            }
        }
        (Kind::VolumeOptions, Value::Map(volume)) if text(volume, "driver") == Some("local") => {
            // A local volume that is a bind mount in disguise.
            if let Some(options) = volume.get_mut("driver_opts").and_then(Node::as_map_mut)
                && text(options, "o") == Some("bind")
                && let Some(Node { value: Value::Text(device), .. }) = options.get_mut("device")
            {
                *device = within(device, base, home);
            }
        }
        _ => {}
    }
    Ok(())
}

fn text<'a>(map: &'a Map, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Node::as_text)
}

fn is_remote(context: &str) -> bool {
    context.starts_with("service:") || is_fetched(context)
}

/// Whether this names a repository, an artifact or a page rather than a path.
pub(crate) fn is_fetched(text: &str) -> bool {
    text.contains("://") || ["github.com/", "git@"].iter().any(|prefix| text.starts_with(prefix))
}

fn is_windows_absolute(path: &str) -> bool {
    let bytes = path.as_bytes();
    path.starts_with(r"\\") || matches!(bytes, [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic())
}

/// The same, where an empty path is `base` itself.
fn within(text: &str, base: &FilePath, home: Option<&str>) -> String {
    absolute(if text.is_empty() { "." } else { text }, base, home)
}

/// `text` as an absolute path: `~` is the home directory, the rest is relative to `base`. Empty stays empty.
pub(crate) fn absolute(text: &str, base: &FilePath, home: Option<&str>) -> String {
    let expanded = match (text.strip_prefix('~'), home) {
        (Some(rest), Some(home)) => clean(&format!("{home}/{rest}")),
        _ => text.to_owned(),
    };
    if expanded.is_empty() || expanded.starts_with('/') {
        return expanded;
    }
    clean(&base.join(expanded).to_string_lossy())
}

/// The shortest name of a path, without looking at the file system.
pub(crate) fn clean(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let mut out = PathBuf::new();
    for part in FilePath::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir) => {}
                _ => out.push(".."),
            },
            other => out.push(other),
        }
    }
    let text = out.to_string_lossy().into_owned();
    if text.is_empty() { ".".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(clean("/a/./b/../c/"), "/a/c");
        assert_eq!(clean("../a"), "../a");
        assert_eq!(clean("/../a"), "/a");
        assert_eq!(clean("./"), ".");
        let base = FilePath::new("/base");
        assert_eq!(absolute("./a", base, None), "/base/a");
        assert_eq!(absolute("~/a", base, Some("/home/u")), "/home/u/a");
        assert_eq!(absolute("/a/../b", base, None), "/a/../b");
        assert_eq!(absolute(".", base, None), "/base");
    }
}
