//! Taking a project down.

use std::collections::BTreeSet;

use berth_client::api::options::RemoveImage;
use futures_util::future::try_join_all;

use super::{Engine, Status};
use crate::{
    Result,
    error::Context,
    labels::{Labelled, OneOff},
    model::Project,
    observe, order, plan,
};

/// Which images go with a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveImages {
    /// Those without a name of the user's.
    Local,
    /// All.
    All,
}

/// What `down` takes away beside containers and networks.
#[derive(Debug, Clone, Default)]
pub struct DownOptions {
    /// Only these services, and those that depend on them; none is all.
    pub services: Vec<String>,
    /// Volumes too.
    pub volumes: bool,
    /// Images too.
    pub images: Option<RemoveImages>,
    /// Containers of services that are not in the files too.
    pub remove_orphans: bool,
    /// Seconds for containers that stop.
    pub timeout: Option<i64>,
}

impl Engine {
    /// Stops and removes a project's containers in the reverse order of their dependencies, then its networks and
    /// whatever else was asked for.
    ///
    /// # Errors
    /// With the first failure; what is still there goes with the next `down`.
    pub async fn down(&self, project: &Project, options: &DownOptions) -> Result<()> {
        let one_off = if options.remove_orphans { OneOff::Include } else { OneOff::Exclude };
        let containers = observe::containers(&self.client, &project.name, one_off, true).await?;
        let chosen = chosen(project, &options.services);
        order::walk(order::dependents(project), |name| {
            let chosen = chosen.contains(&name);
            let (containers, name) = (&containers, name);
            async move {
                let service = project.services.get(&name);
                let own = containers
                    .iter()
                    .filter(|container| chosen && container.service() == name && !container.is_one_off());
                try_join_all(own.map(|container| {
                    self.stop_and_remove(container, service, options.timeout, options.volumes)
                }))
                .await?;
                Ok(())
            }
        })
        .await?;
        if options.remove_orphans {
            let orphans = plan::orphans(project, &containers);
            try_join_all(orphans.map(|orphan| self.stop_and_remove(orphan, None, options.timeout, false)))
                .await?;
        }
        let networks = project.networks.iter().filter(|(_, network)| !network.external);
        let networks = networks.map(|(key, network)| self.remove_network(&project.name, key, &network.name));
        let volumes = project.volumes.values().filter(|volume| options.volumes && !volume.external);
        let volumes = volumes.map(|volume| self.remove_volume(&volume.name));
        let (networks, volumes, ()) = tokio::try_join!(
            try_join_all(networks),
            try_join_all(volumes),
            self.remove_images(project, options.images)
        )?;
        let any = networks.into_iter().chain(volumes).any(|removed| removed);
        if containers.is_empty() && !any && options.images.is_none() {
            self.progress.warn(&format!("No resource found to remove for project {:?}.", project.name));
        }
        Ok(())
    }

    async fn remove_images(&self, project: &Project, which: Option<RemoveImages>) -> Result<()> {
        let Some(which) = which else { return Ok(()) };
        let local = |(name, service): (&String, &crate::model::Service)| {
            let named = !service.image.is_empty() && which == RemoveImages::Local;
            (!named).then(|| service.image_name(&project.name, name))
        };
        let images: BTreeSet<String> = project.services.iter().filter_map(local).collect();
        let removals = images.into_iter().map(async |image| {
            let what = format!("Image {image}");
            self.working(&what, "Removing");
            match self.act(self.client.image_remove(&image, &RemoveImage::default())).await {
                Ok(_) => self.done(&what, "Removed"),
                Err(error) if error.is_not_found() => {
                    self.done(&what, "Warning: No resource found to remove")
                }
                Err(error) if error.is_conflict() => {
                    self.progress.tell(&what, Status::Warning, "Resource is still in use");
                }
                Err(error) => return Err(error).during(|| format!("removing image {image}")),
            }
            Ok(())
        });
        try_join_all(removals).await?;
        Ok(())
    }
}

/// The named services and all that depend on them; all if none is named.
fn chosen(project: &Project, named: &[String]) -> BTreeSet<String> {
    if named.is_empty() {
        return project.services.keys().cloned().collect();
    }
    let dependents = order::dependents(project);
    let mut chosen = BTreeSet::new();
    let mut open: Vec<String> = named.to_vec();
    while let Some(name) = open.pop() {
        open.extend(
            dependents.get(&name).into_iter().flatten().filter(|other| !chosen.contains(*other)).cloned(),
        );
        chosen.insert(name);
    }
    chosen
}
