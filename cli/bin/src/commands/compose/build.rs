//! How the image of a service is built: here by a Berth that gets directories as descriptors, else of an archive.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use berth_api::build::{BuildOptions as ApiBuild, LocalBuild, LocalContext};
use berth_client::{Host, JsonStream};
use berth_compose::apply::BuildOptions;
use berth_compose::model::ulimits_of;

use super::images::Maker;
use crate::commands::build::{self, Handed, Progress, local, options};
use crate::credentials;
use crate::output::progress::{self, Show};

impl Maker {
    /// Builds one image.
    pub(super) async fn build_one(&self, wanted: &BuildOptions) -> Result<()> {
        if !wanted.build.isolation.is_empty() && wanted.build.isolation != "default" {
            bail!("build.isolation {:?} is known on Windows only", wanted.build.isolation);
        }
        if matches!(self.client.host(), Host::Unix(_)) {
            let mut handed = Handed::default();
            let build = self.local(wanted, &mut handed)?;
            if let Some(messages) = self.client.local_build(&build, &handed.0).await? {
                let progress = if self.quiet_build { Progress::Quiet } else { Progress::Plain };
                return build::show(messages, progress, false).await.map(drop);
            }
        }
        self.of_archive(wanted).await
    }

    /// What both ways have in common.
    fn options(&self, wanted: &BuildOptions) -> ApiBuild {
        let build = &wanted.build;
        ApiBuild {
            tags: wanted.tags.clone(),
            extra_hosts: build.extra_hosts.lines(":"),
            no_cache: self.no_cache || build.no_cache,
            pull: self.pull_base || build.pull,
            remove: true,
            memory: self.memory,
            build_args: wanted.args.clone(),
            shm_size: build.shm_size.0,
            labels: wanted.labels.clone(),
            network_mode: build.network.clone(),
            platform: wanted.platform.clone(),
            target: build.target.clone(),
            ulimits: ulimits_of(&build.ulimits),
            ..ApiBuild::default()
        }
    }

    fn local(&self, wanted: &BuildOptions, handed: &mut Handed) -> Result<LocalBuild> {
        let build = &wanted.build;
        let given = (!build.dockerfile.is_empty() && build.dockerfile_inline.is_empty())
            .then(|| Path::new(&build.context).join(&build.dockerfile));
        let given = match build::is_url(&build.context) {
            true => (!build.dockerfile.is_empty()).then(|| build.dockerfile.clone().into()),
            false => given,
        };
        let inline = (!build.dockerfile_inline.is_empty()).then(|| build.dockerfile_inline.clone());
        let (context, dockerfile, text) = local::place(&build.context, given.as_deref(), inline, handed)?;
        let mut allow = build.entitlements.clone();
        allow.extend(build.privileged.then(|| "security.insecure".to_owned()));
        let ssh: Vec<String> = build
            .ssh
            .0
            .iter()
            .map(|(id, path)| match path.as_deref() {
                Some(path) if !path.is_empty() => format!("{id}={path}"),
                _ => id.clone(),
            })
            .collect();
        Ok(LocalBuild {
            options: ApiBuild { dockerfile, ..self.options(wanted) },
            auths: credentials::for_build()?,
            name: wanted.tags.first().cloned().unwrap_or_default(),
            context,
            dockerfile_text: text,
            named_contexts: contexts(wanted, handed)?,
            no_cache_filter: Vec::new(),
            secrets: wanted.secrets.clone(),
            ssh: options::agents(&ssh)?,
            allow,
            outputs: Vec::new(),
            rewrite_timestamp: false,
            cache_from: options::caches("cache_from", &build.cache_from.0, false, handed)?,
            cache_to: options::caches("cache_to", &build.cache_to.0, true, handed)?,
        })
    }

    /// The classic way, which a dockerd knows as well.
    async fn of_archive(&self, wanted: &BuildOptions) -> Result<()> {
        let build = &wanted.build;
        let needs = [
            ("secrets", !wanted.secrets.is_empty()),
            ("ssh", !build.ssh.0.is_empty()),
            ("additional_contexts", !build.additional_contexts.is_empty()),
            ("entitlements", !build.entitlements.is_empty()),
            ("privileged", build.privileged),
            ("cache_to", !build.cache_to.0.is_empty()),
        ];
        if let Some((key, _)) = needs.into_iter().find(|(_, needed)| *needed) {
            bail!("build.{key} needs a Berth engine on this machine; this one knows the classic build only");
        }
        let inline =
            (!build.dockerfile_inline.is_empty()).then(|| build.dockerfile_inline.clone().into_bytes());
        let dockerfile =
            (!build.dockerfile.is_empty()).then(|| Path::new(&build.context).join(&build.dockerfile));
        let options = ApiBuild { cache_from: build.cache_from.0.clone(), ..self.options(wanted) };
        let stream =
            build::of_context(&self.client, options, &build.context, dockerfile.as_deref(), inline).await?;
        show(stream, self.quiet_build).await
    }
}

/// Named contexts; `service:NAME` is the image that was built for that service.
fn contexts(wanted: &BuildOptions, handed: &mut Handed) -> Result<BTreeMap<String, LocalContext>> {
    let flags = wanted.build.additional_contexts.iter().map(|(name, value)| {
        let value = match value.strip_prefix("service:") {
            Some(service) => match wanted.service_images.get(service) {
                Some(image) => format!("docker-image://{image}"),
                None => value.clone(),
            },
            None => value.clone(),
        };
        format!("{name}={value}")
    });
    options::contexts(&flags.collect::<Vec<_>>(), handed)
}

/// Shows a build on standard error; a quiet one only if it fails.
async fn show(stream: JsonStream<berth_api::progress::ProgressMessage>, quiet: bool) -> Result<()> {
    if quiet {
        build::quietly(stream).await.map(drop)
    } else {
        progress::show(stream, Show::All).await.map(drop)
    }
}
