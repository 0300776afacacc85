//! `berth compose build --print`: the builds as the file that `docker buildx bake` takes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use berth_compose::model::{Build, Project, ulimits_of};
use serde::Serialize;

use super::images::build_args;
use crate::commands::build::is_url;

#[derive(Serialize)]
struct File {
    group: BTreeMap<&'static str, Group>,
    target: BTreeMap<String, Target>,
}

#[derive(Serialize)]
struct Group {
    targets: Vec<String>,
}

/// One image, in the words of bake.
#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Target {
    context: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    contexts: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    dockerfile: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    dockerfile_inline: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    args: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cache_from: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cache_to: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    target: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secret: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    platforms: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pull: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_cache: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    network: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    shm_size: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ulimits: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entitlements: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra_hosts: BTreeMap<String, String>,
    output: Vec<String>,
}

/// The file's text for these services; `push` sends the images to their registries.
pub(super) fn text(project: &Project, names: &[String], flags: &[String], push: bool) -> Result<String> {
    let mut file = File {
        group: BTreeMap::from([("default", Group { targets: names.to_vec() })]),
        target: BTreeMap::new(),
    };
    for name in names {
        let service = project.service(name)?;
        let Some(build) = &service.build else { continue };
        let mut target = target(project, name, build, flags);
        target.tags.push(service.image_name(&project.name, name));
        target.output = vec![if push { "type=registry" } else { "type=docker" }.to_owned()];
        file.target.insert(name.clone(), target);
    }
    Ok(serde_json::to_string_pretty(&file)?)
}

fn target(project: &Project, name: &str, build: &Build, flags: &[String]) -> Target {
    let mut args = build.args.0.clone();
    args.extend(build_args(flags));
    let value = |(key, value): (String, Option<String>)| {
        let value = value.or_else(|| project.environment.get(&key).cloned())?;
        Some((key, value))
    };
    let context = |(name, value): (&String, &String)| {
        let value =
            value.strip_prefix("service:").map_or_else(|| value.clone(), |name| format!("target:{name}"));
        (name.clone(), value)
    };
    let dockerfile = match build.dockerfile_inline.is_empty() {
        true if is_url(&build.context) || build.dockerfile.is_empty() => build.dockerfile.clone(),
        true => Path::new(&build.context).join(&build.dockerfile).display().to_string(),
        false => String::new(),
    };
    let secret = |reference: &berth_compose::model::FileReference| {
        let id = if reference.target.is_empty() { &reference.source } else { &reference.target };
        let secret = project.secrets.get(&reference.source)?;
        Some(match secret.environment.as_str() {
            "" => format!("id={id},type=file,src={}", secret.file),
            variable => format!("id={id},type=env,env={variable}"),
        })
    };
    let ulimit = |limit: berth_api::container::Ulimit| match limit.soft == limit.hard {
        true => format!("{}={}", limit.name, limit.soft),
        false => format!("{}={}:{}", limit.name, limit.soft, limit.hard),
    };
    Target {
        context: build.context.clone(),
        contexts: build.additional_contexts.0.iter().map(context).collect(),
        dockerfile,
        dockerfile_inline: build.dockerfile_inline.clone(),
        args: args.into_iter().filter_map(value).collect(),
        labels: berth_compose::apply::image_labels(project, name, build),
        tags: build.tags.0.clone(),
        cache_from: build.cache_from.0.clone(),
        cache_to: build.cache_to.0.clone(),
        target: build.target.clone(),
        secret: build.secrets.iter().filter_map(secret).collect(),
        ssh: build
            .ssh
            .0
            .iter()
            .map(|(id, path)| format!("{id}={}", path.as_deref().unwrap_or_default()))
            .collect(),
        platforms: build.platforms.0.clone(),
        pull: build.pull,
        no_cache: build.no_cache,
        network: build.network.clone(),
        shm_size: if build.shm_size.0 == 0 { String::new() } else { build.shm_size.0.to_string() },
        ulimits: ulimits_of(&build.ulimits).into_iter().map(ulimit).collect(),
        entitlements: build.entitlements.clone(),
        extra_hosts: build
            .extra_hosts
            .0
            .iter()
            .map(|(host, addresses)| (host.clone(), addresses.join(",")))
            .collect(),
        output: Vec::new(),
    }
}
