//! What the grammar cannot say: values that exclude each other, references that lead nowhere.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Fault, LoadError, Tree};
use crate::{
    model::{FileObject, Project, Service},
    yaml::{Map, Node, Path, Value},
};

/// Checks values that can be judged alone.
pub(crate) fn values(node: &Node) -> Result<(), Fault> {
    walk(node, &Path::root())
}

fn walk(node: &Node, path: &Path) -> Result<(), Fault> {
    if let Value::Map(map) = &node.value {
        one(node, map, path)?;
        return map.iter().try_for_each(|(key, node)| walk(node, &path.join(key.as_str())));
    }
    let mut items = node.as_list().unwrap_or_default().iter().enumerate();
    items.try_for_each(|(index, node)| walk(node, &path.join(index.to_string())))
}

fn one(node: &Node, map: &Map, path: &Path) -> Result<(), Fault> {
    let wrong = |message: String| Err(Fault::new(node.mark, path, message));
    if path.matches("volumes.*")
        && map.get("external").is_some_and(|external| external.value == Value::Bool(true))
    {
        let other =
            map.keys().find(|key| !matches!(key.as_str(), "name" | "external") && !key.starts_with("x-"));
        if let Some(other) = other {
            return wrong(format!("conflicting parameters \"external\" and {other:?} specified"));
        }
    }
    if path.matches("configs.*") {
        exclusive(node, map, path, &["file", "environment", "content"])?;
    }
    if path.matches("secrets.*") {
        exclusive(node, map, path, &["file", "environment"])?;
    }
    if path.matches("services.*.ports.*")
        && let Some(ip) = map.get("host_ip").and_then(Node::as_text)
        && ip.parse::<IpAddr>().is_err()
    {
        return wrong(format!("invalid ip address: {ip}"));
    }
    if path.matches("services.*.develop.watch.*") && map.get("path").and_then(Node::as_text) == Some("") {
        return wrong("path: value can't be blank".to_owned());
    }
    let device = path.matches("services.*.deploy.resources.reservations.devices.*")
        || path.matches("services.*.gpus.*");
    if device && map.contains_key("count") && map.contains_key("device_ids") {
        return wrong("\"count\" and \"device_ids\" attributes are exclusive".to_owned());
    }
    Ok(())
}

fn exclusive(node: &Node, map: &Map, path: &Path, keys: &[&str]) -> Result<(), Fault> {
    let present = keys.iter().filter(|key| map.contains_key(**key)).count();
    let message = match present {
        1 => return Ok(()),
        0 if map.contains_key("driver") || map.contains_key("external") => return Ok(()),
        0 => format!("one of {} must be set", keys.join("|")),
        _ => format!("{} attributes are mutually exclusive", keys.join("|")),
    };
    Err(Fault::new(node.mark, path, message))
}

/// Checks that a project's parts fit together.
pub(crate) fn consistency(project: &Project, tree: &Tree) -> Result<(), LoadError> {
    let mut check = Consistency { project, tree };
    for (name, service) in &project.services {
        check.service(name, service)?;
    }
    for (name, secret) in &project.secrets {
        check.secret(name, secret)?;
    }
    cycle(project, tree)
}

struct Consistency<'a> {
    project: &'a Project,
    tree: &'a Tree,
}

impl Consistency<'_> {
    fn wrong(&self, path: &str, message: impl Into<String>) -> Result<(), LoadError> {
        Err(self.tree.problem(&Path::from(path), message))
    }

    fn service(&mut self, name: &str, service: &Service) -> Result<(), LoadError> {
        let at = format!("services.{name}");
        if service.build.is_none() && service.image.is_empty() && service.provider.is_none() {
            return self
                .wrong(&at, format!("service {name:?} has neither an image nor a build context specified"));
        }
        self.build(name, service)?;
        self.references(name, service)?;
        self.limits(name, service)?;
        if let Some(first) = service.healthcheck.as_ref().and_then(|check| check.test.0.first())
            && !matches!(first.as_str(), "CMD" | "CMD-SHELL" | "NONE")
        {
            let message = r#"healthcheck.test must start either by "CMD", "CMD-SHELL" or "NONE""#;
            return self.wrong(&format!("{at}.healthcheck.test"), message);
        }
        for (index, trigger) in service.develop.iter().flat_map(|develop| develop.watch.iter().enumerate()) {
            if trigger.target.is_empty() && !matches!(trigger.action.0.as_str(), "rebuild" | "restart") {
                let message = "target is required for non-rebuild actions";
                return self.wrong(&format!("{at}.develop.watch.{index}"), message);
            }
        }
        self.mounts(name, service)
    }

    fn build(&self, name: &str, service: &Service) -> Result<(), LoadError> {
        let Some(build) = &service.build else { return Ok(()) };
        let at = format!("services.{name}.build");
        if !build.dockerfile_inline.is_empty() && !build.dockerfile.is_empty() {
            let message =
                format!("service {name:?} declares mutually exclusive dockerfile and dockerfile_inline");
            return self.wrong(&at, message);
        }
        for (context, target) in build.additional_contexts.iter() {
            let Some(target) = target.strip_prefix("service:") else { continue };
            let what = match self.project.services.get(target) {
                None => "unknown",
                Some(other) if other.build.is_none() => "non-buildable",
                Some(_) => continue,
            };
            let message = format!(
                "service {name:?} declares {what} service {target:?} as additional contexts {context}"
            );
            return self.wrong(&at, message);
        }
        if !build.platforms.0.is_empty()
            && !service.platform.is_empty()
            && !build.platforms.0.contains(&service.platform)
        {
            let message =
                format!("service.build.platforms MUST include service.platform {:?}", service.platform);
            return self.wrong(&at, message);
        }
        for secret in &build.secrets {
            if !self.project.secrets.contains_key(&secret.source) {
                let message = format!("service {name:?} refers to undefined build secret {}", secret.source);
                return self.wrong(&at, message);
            }
        }
        Ok(())
    }

    fn references(&self, name: &str, service: &Service) -> Result<(), LoadError> {
        let at = format!("services.{name}");
        let project = self.project;
        if !service.network_mode.is_empty() && !service.networks.is_empty() {
            let message = format!("service {name} declares mutually exclusive `network_mode` and `networks`");
            return self.wrong(&at, message);
        }
        let undefined = |key: &str, what: &str, target: &str| {
            self.wrong(
                &format!("{at}.{key}"),
                format!("service {name:?} refers to undefined {what} {target}"),
            )
        };
        if let Some(network) =
            service.networks.keys().find(|network| !project.networks.contains_key(*network))
        {
            return undefined("networks", "network", network);
        }
        for (dependency, config) in &service.depends_on {
            let there = project.services.contains_key(dependency);
            let disabled = project.disabled.contains_key(dependency) && !config.required.0;
            if !there && !disabled {
                let message = format!("service {name:?} depends on undefined service {dependency:?}");
                return self.wrong(&format!("{at}.depends_on"), message);
            }
        }
        if let Some(shared) = service.network_mode.strip_prefix("service:")
            && !project.services.contains_key(shared)
        {
            let message = format!("service {shared:?} not found for network_mode 'service:{shared}'");
            return self.wrong(&format!("{at}.network_mode"), message);
        }
        for (index, mount) in service.volumes.iter().enumerate() {
            let named = mount.r#type == "volume" && !mount.source.is_empty();
            if named && !project.volumes.contains_key(&mount.source) {
                return undefined(&format!("volumes.{index}"), "volume", &mount.source);
            }
        }
        if let Some(config) =
            service.configs.iter().find(|config| !project.configs.contains_key(&config.source))
        {
            return undefined("configs", "config", &config.source);
        }
        if let Some(model) = service.models.keys().find(|model| !project.models.contains_key(*model)) {
            return undefined("models", "model", model);
        }
        match service.secrets.iter().find(|secret| !project.secrets.contains_key(&secret.source)) {
            Some(secret) => undefined("secrets", "secret", &secret.source),
            None => Ok(()),
        }
    }

    fn limits(&self, name: &str, service: &Service) -> Result<(), LoadError> {
        let at = format!("services.{name}");
        let deployed = service.deploy.as_ref().and_then(|deploy| deploy.replicas);
        let distinct = |one: &str, other: &str| {
            self.wrong(&at, format!("can't set distinct values on '{one}' and 'deploy.{other}'"))
        };
        if let (Some(scale), Some(replicas)) = (service.scale, deployed)
            && scale != replicas
        {
            return distinct("scale", "replicas");
        }
        if service.replicas() < 0 {
            return self.wrong(&at, "the number of replicas must be greater than or equal to 0");
        }
        if service.replicas() > 1 && !service.container_name.is_empty() {
            let what = if service.scale.is_some() { "scale" } else { "deploy.replicas" };
            let message = format!("can't set container_name and {what} as container name must be unique");
            return self.wrong(&at, message);
        }
        let Some(deploy) = &service.deploy else { return Ok(()) };
        if let Some(limits) = &deploy.resources.limits {
            #[allow(clippy::float_cmp, reason = "the same text gives the same number")]
            if service.cpus.0 != 0.0 && limits.cpus.0 != service.cpus.0 {
                return distinct("cpus", "resources.limits.cpus");
            }
            if service.mem_limit.0 != 0 && limits.memory != service.mem_limit {
                return distinct("mem_limit", "resources.limits.memory");
            }
            if service.pids_limit != 0 && limits.pids != service.pids_limit {
                return distinct("pids_limit", "resources.limits.pids");
            }
        }
        match &deploy.resources.reservations {
            Some(reserved)
                if service.mem_reservation.0 != 0 && reserved.memory != service.mem_reservation =>
            {
                distinct("mem_reservation", "resources.reservations.memory")
            }
            _ => Ok(()),
        }
    }

    fn mounts(&self, name: &str, service: &Service) -> Result<(), LoadError> {
        let tmpfs = service.tmpfs.0.iter().enumerate().map(|(index, line)| {
            (format!("services.{name}.tmpfs.{index}"), line.split(':').next().unwrap_or_default())
        });
        let volumes = service.volumes.iter().enumerate();
        let volumes =
            volumes.map(|(index, mount)| (format!("services.{name}.volumes.{index}"), mount.target.as_str()));
        let mut taken: BTreeMap<&str, String> = BTreeMap::new();
        for (path, target) in tmpfs.chain(volumes) {
            if let Some(first) = taken.get(target) {
                let message = format!("target {target} already mounted as {}", Path::from(first.as_str()));
                return self.wrong(&path, message);
            }
            taken.insert(target, path);
        }
        Ok(())
    }

    fn secret(&self, name: &str, secret: &FileObject) -> Result<(), LoadError> {
        if secret.external || !secret.file.is_empty() || !secret.environment.is_empty() {
            return Ok(());
        }
        let message = format!("secret {name:?} must declare either `file` or `environment`");
        self.wrong(&format!("secrets.{name}"), message)
    }
}

/// Services must not wait for each other.
fn cycle(project: &Project, tree: &Tree) -> Result<(), LoadError> {
    fn visit<'a>(
        name: &'a str,
        project: &'a Project,
        way: &mut Vec<&'a str>,
        done: &mut Vec<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if done.contains(&name) {
            return None;
        }
        if let Some(start) = way.iter().position(|step| *step == name) {
            return Some(way[start..].iter().copied().chain([name]).collect());
        }
        way.push(name);
        let dependencies =
            project.services.get(name).into_iter().flat_map(|service| service.depends_on.keys());
        let found = dependencies.into_iter().find_map(|next| visit(next, project, way, done));
        way.pop();
        done.push(name);
        found
    }
    let mut done = Vec::new();
    for name in project.services.keys() {
        if let Some(cycle) = visit(name, project, &mut Vec::new(), &mut done) {
            let path = Path::from("services").join(cycle[0]).join("depends_on");
            return Err(tree.problem(&path, format!("dependency cycle detected: {}", cycle.join(" -> "))));
        }
    }
    Ok(())
}
