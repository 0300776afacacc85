//! Short forms become long ones, so that everything after this knows one form only.

use super::{Fault, Warnings, short};
use crate::yaml::{Map, Mark, Node, Path, Value};

/// Rewrites a tree. With `lenient` (texts still have their variables) what cannot be read stays as it is.
pub(crate) fn canonical(node: &mut Node, lenient: bool, warnings: &mut Warnings) -> Result<(), Fault> {
    let mut rewriter = Rewriter { lenient, warnings: std::mem::take(warnings) };
    let rewritten = rewriter.walk(node, &Path::root());
    *warnings = rewriter.warnings;
    rewritten?;
    omit_empty(node);
    Ok(())
}

struct Rewriter {
    lenient: bool,
    warnings: Warnings,
}

type Rewrite = fn(&mut Rewriter, &mut Node, &Path) -> Result<(), Fault>;

/// What is rewritten before its children are looked at.
const REWRITES: &[(&str, Rewrite)] = &[
    ("services.*.build", Rewriter::build),
    ("services.*.build.secrets.*", Rewriter::file),
    ("services.*.build.provenance", Rewriter::text),
    ("services.*.build.sbom", Rewriter::text),
    ("services.*.build.additional_contexts", Rewriter::pairs),
    ("services.*.build.ssh", Rewriter::ssh),
    ("services.*.depends_on", Rewriter::depends_on),
    ("services.*.env_file", Rewriter::env_file),
    ("services.*.label_file", Rewriter::list),
    ("services.*.extends", Rewriter::extends),
    ("services.*.gpus", Rewriter::gpus),
    ("services.*.networks", Rewriter::names),
    ("services.*.models", Rewriter::names),
    ("services.*.volumes.*", Rewriter::volume),
    ("services.*.dns", Rewriter::list),
    ("services.*.devices.*", Rewriter::device),
    ("services.*.secrets.*", Rewriter::file),
    ("services.*.configs.*", Rewriter::file),
    ("services.*.ports", Rewriter::ports),
    ("services.*.develop.watch.*.ignore", Rewriter::list),
    ("services.*.develop.watch.*.include", Rewriter::list),
    ("volumes.*", Rewriter::external),
    ("networks.*", Rewriter::external),
    ("secrets.*", Rewriter::external),
    ("configs.*", Rewriter::external),
];

fn entry(key: &str, value: impl Into<Value>, mark: Mark) -> (String, Node) {
    (key.to_owned(), Node::new(value, mark))
}

impl Rewriter {
    fn walk(&mut self, node: &mut Node, path: &Path) -> Result<(), Fault> {
        if let Some((_, rewrite)) = REWRITES.iter().find(|(pattern, _)| path.matches(pattern)) {
            rewrite(self, node, path)?;
        }
        match &mut node.value {
            Value::Map(map) => {
                map.iter_mut().try_for_each(|(key, node)| self.walk(node, &path.join(key.as_str())))
            }
            Value::List(list) => {
                let mut items = list.iter_mut().enumerate();
                items.try_for_each(|(index, node)| self.walk(node, &path.join(index.to_string())))
            }
            _ => Ok(()),
        }
    }

    fn build(&mut self, node: &mut Node, _: &Path) -> Result<(), Fault> {
        wrap(node, "context");
        Ok(())
    }

    fn extends(&mut self, node: &mut Node, _: &Path) -> Result<(), Fault> {
        wrap(node, "service");
        Ok(())
    }

    fn file(&mut self, node: &mut Node, _: &Path) -> Result<(), Fault> {
        wrap(node, "source");
        Ok(())
    }

    fn text(&mut self, node: &mut Node, _: &Path) -> Result<(), Fault> {
        node.value = Value::Text(node.value.to_string());
        Ok(())
    }

    fn list(&mut self, node: &mut Node, _: &Path) -> Result<(), Fault> {
        if let Value::Text(_) = node.value {
            node.value = Value::List(vec![node.clone()]);
        }
        Ok(())
    }

    fn names(&mut self, node: &mut Node, _: &Path) -> Result<(), Fault> {
        if let Value::List(list) = &node.value {
            let names = list.iter().map(|item| (item.value.to_string(), Node::new(Value::Null, item.mark)));
            node.value = Value::Map(names.collect());
        }
        Ok(())
    }

    fn pairs(&mut self, node: &mut Node, path: &Path) -> Result<(), Fault> {
        let Value::List(list) = &node.value else { return Ok(()) };
        let mut map = Map::new();
        for item in list {
            match item.value.to_string().split_once('=') {
                Some((key, value)) => map.extend([entry(key, value, item.mark)]),
                None if self.lenient => return Ok(()),
                None => {
                    return Err(Fault::new(
                        item.mark,
                        path,
                        format!("{:?} is not key=value", item.value.to_string()),
                    ));
                }
            }
        }
        node.value = Value::Map(map);
        Ok(())
    }

    fn ssh(&mut self, node: &mut Node, path: &Path) -> Result<(), Fault> {
        let Value::List(list) = &node.value else { return Ok(()) };
        let mut map = Map::new();
        for item in list {
            let text = item.value.to_string();
            match text.split_once('=') {
                Some((id, key)) => map.extend([entry(id, key, item.mark)]),
                None if text == "default" => map.extend([entry("default", Value::Null, item.mark)]),
                None => return Err(Fault::new(item.mark, path, format!("invalid ssh key {text:?}"))),
            }
        }
        node.value = Value::Map(map);
        Ok(())
    }

    fn depends_on(&mut self, node: &mut Node, path: &Path) -> Result<(), Fault> {
        self.names(node, path)?;
        for (name, dependency) in node.as_map_mut().into_iter().flatten() {
            let mark = dependency.mark;
            if dependency.is_null() {
                dependency.value = Value::Map(Map::new());
            }
            let Some(map) = dependency.as_map_mut() else {
                return Err(Fault::new(mark, &path.join(name.as_str()), "a mapping is expected here"));
            };
            map.entry("condition".to_owned()).or_insert_with(|| Node::new("service_started", mark));
            map.entry("required".to_owned()).or_insert_with(|| Node::new(true, mark));
        }
        Ok(())
    }

    fn env_file(&mut self, node: &mut Node, path: &Path) -> Result<(), Fault> {
        self.list(node, path)?;
        if let Value::List(list) = &mut node.value {
            for item in list {
                let mark = item.mark;
                wrap(item, "path");
                if let Some(map) = item.as_map_mut() {
                    map.entry("required".to_owned()).or_insert_with(|| Node::new(true, mark));
                }
            }
        }
        Ok(())
    }

    fn gpus(&mut self, node: &mut Node, _: &Path) -> Result<(), Fault> {
        if let Value::Text(_) = node.value {
            let all = Map::from([entry("count", "all", node.mark)]);
            node.value = Value::List(vec![Node::new(all, node.mark)]);
        }
        Ok(())
    }

    fn volume(&mut self, node: &mut Node, path: &Path) -> Result<(), Fault> {
        let Value::Text(text) = &node.value else { return Ok(()) };
        let mark = node.mark;
        let volume = match short::volume(text) {
            Ok(volume) => volume,
            Err(_) if self.lenient => return Ok(()),
            Err(message) => return Err(Fault::new(mark, path, message)),
        };
        let bind = volume.is_bind();
        let text_len = text.len();
        let mut map = Map::from([entry("type", if bind { "bind" } else { "volume" }, mark)]);
        if !volume.source.is_empty() {
            map.extend([entry("source", volume.source, mark)]);
        }
        map.extend([entry("target", super::paths::clean(&volume.target), mark)]);
        if volume.read_only {
            map.extend([entry("read_only", true, mark)]);
        }
        let mut bind_options = Map::new();
        bind_options.extend(volume.selinux.map(|value| entry("selinux", value, mark)));
        bind_options.extend(volume.propagation.map(|value| entry("propagation", value, mark)));
        if bind {
            // The short form makes a missing source.
            bind_options.extend([entry("create_host_path", true, mark)]);
        }
        if bind || !bind_options.is_empty() {
            map.extend([entry("bind", bind_options, mark)]);
        }
        // Docker compose leaves the options out of the very shortest form (`/a`).
        if (!bind && text_len > 2) || volume.no_copy {
            let options = if volume.no_copy { Map::from([entry("nocopy", true, mark)]) } else { Map::new() };
            map.extend([entry("volume", options, mark)]);
        }
        node.value = Value::Map(map);
        Ok(())
    }

    fn device(&mut self, node: &mut Node, path: &Path) -> Result<(), Fault> {
        let Value::Text(text) = &node.value else { return Ok(()) };
        let mark = node.mark;
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, permissions) = match parts.as_slice() {
            [source] => (*source, *source, "rwm"),
            [source, target] => (*source, *target, "rwm"),
            [source, target, permissions] => (*source, *target, *permissions),
            _ if self.lenient => ("", "", "rwm"),
            _ => {
                let message = format!("confusing device mapping, please use long syntax: {text}");
                return Err(Fault::new(mark, path, message));
            }
        };
        let target = if target.is_empty() { source } else { target };
        node.value = Value::Map(Map::from([
            entry("source", source, mark),
            entry("target", target, mark),
            entry("permissions", permissions, mark),
        ]));
        Ok(())
    }

    fn ports(&mut self, node: &mut Node, path: &Path) -> Result<(), Fault> {
        let Value::List(list) = &node.value else { return Ok(()) };
        let mut ports = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            if item.as_map().is_some() {
                ports.push(item.clone());
                continue;
            }
            let parsed = match short::ports(&item.value.to_string()) {
                Ok(parsed) => parsed,
                Err(_) if self.lenient => return Ok(()),
                Err(message) => return Err(Fault::new(item.mark, &path.join(index.to_string()), message)),
            };
            for port in parsed {
                let mut map = Map::from([entry("mode", "ingress", item.mark)]);
                if !port.host_ip.is_empty() {
                    map.extend([entry("host_ip", port.host_ip, item.mark)]);
                }
                map.extend([entry("target", i64::from(port.target), item.mark)]);
                if !port.published.is_empty() {
                    map.extend([entry("published", port.published, item.mark)]);
                }
                map.extend([entry("protocol", port.protocol, item.mark)]);
                ports.push(Node::new(map, item.mark));
            }
        }
        node.value = Value::List(ports);
        Ok(())
    }

    /// `external: {name: x}` is an old way to write `external: true` and `name: x`.
    fn external(&mut self, node: &mut Node, path: &Path) -> Result<(), Fault> {
        let Some(map) = node.as_map_mut() else { return Ok(()) };
        let Some(external) = map.get_mut("external") else { return Ok(()) };
        let mark = external.mark;
        let Value::Map(old) = &external.value else { return Ok(()) };
        let name = old.get("name").cloned();
        external.value = Value::Bool(true);
        if let Some(name) = name {
            self.warnings
                .add(format!("{path}: external.name is deprecated. Please set name and external: true"));
            match map.get("name") {
                Some(there) if *there != name => {
                    return Err(Fault::new(mark, path, "name and external.name conflict; only use name"));
                }
                Some(_) => {}
                None => {
                    map.insert("name".to_owned(), name);
                }
            }
        }
        Ok(())
    }
}

/// A text becomes a mapping with it under `key`.
fn wrap(node: &mut Node, key: &str) {
    if let Value::Text(_) = node.value {
        node.value = Value::Map(Map::from([(key.to_owned(), node.clone())]));
    }
}

/// A blank name server (of an unset variable) is none.
fn omit_empty(node: &mut Node) {
    let services = node.as_map_mut().and_then(|map| map.get_mut("services")).and_then(Node::as_map_mut);
    for service in services.into_iter().flat_map(Map::values_mut) {
        if let Some(Node { value: Value::List(servers), .. }) =
            service.as_map_mut().and_then(|service| service.get_mut("dns"))
        {
            servers.retain(|server| !server.is_null() && server.as_text() != Some(""));
        }
    }
}
