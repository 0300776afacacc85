//! List: `docker ps`.

use std::collections::HashMap;
use std::time::Duration;

use berth_api::container::{ContainerSummary, HealthSummary, HostConfigSummary, NetworkSettingsSummary};
use berth_api::options::ListContainers;
use jiff::Timestamp;

use super::exit::elapsed;
use super::filters::ContainerFilter;
use super::machine::Phase;
use super::{Container, Status, ports};
use crate::engine::Engine;
use crate::error::Result;
use crate::fsutil;

impl Engine {
    /// The containers that pass the filters, the newest first.
    ///
    /// # Errors
    /// A filter that is unknown or has no sense.
    pub async fn list_containers(&self, options: &ListContainers) -> Result<Vec<ContainerSummary>> {
        let filter = ContainerFilter::new(self, &options.filters)?;
        let all = options.all || options.limit > 0 || filter.wants_stopped();
        let mut found = Vec::new();
        for container in self.containers.all() {
            if (all || container.phase().is_running()) && filter.matches(&container)? {
                found.push(container);
            }
        }
        found.sort_by_key(|container| std::cmp::Reverse(container.definition().created));
        if let Ok(limit @ 1..) = usize::try_from(options.limit) {
            found.truncate(limit);
        }
        // One look-up per image name, not per container.
        let linked = self.link_names();
        let mut images = HashMap::new();
        let mut summaries: Vec<_> =
            found.iter().map(|container| self.summary(container, &mut images)).collect();
        for (summary, container) in summaries.iter_mut().zip(&found) {
            summary.names.extend(linked.get(&container.id).into_iter().flatten().cloned());
            summary.health = options.health.then(|| health(&container.status()));
        }
        if options.size {
            for (summaries, some) in summaries.chunks_mut(fsutil::WALKS).zip(found.chunks(fsutil::WALKS)) {
                let walks: Vec<_> = some.iter().map(|container| self.weigh(container)).collect();
                for (summary, walk) in summaries.iter_mut().zip(walks) {
                    (summary.size_rw, summary.size_root_fs) = walk.await??;
                }
            }
        }
        Ok(summaries)
    }

    fn summary(
        &self,
        container: &Container,
        images: &mut HashMap<String, Option<String>>,
    ) -> ContainerSummary {
        let (definition, status) = (container.definition(), container.status());
        let (path, args) = definition.command();
        let name = &definition.config.image;
        let meant = images
            .entry(name.clone())
            .or_insert_with(|| self.store.images().resolve(name).ok().map(|image| image.id.to_string()));
        // The name may have been given to another image since.
        let image = match meant {
            Some(id) if *id != definition.image_id => definition.image_id.clone(),
            _ => name.clone(),
        };
        ContainerSummary {
            id: container.id.clone(),
            names: vec![format!("/{}", definition.name)],
            image,
            image_id: definition.image_id.clone(),
            command: command_line(path, &args),
            created: definition.created.as_second(),
            ports: ports::summaries(&definition, &status),
            labels: definition.config.labels.clone(),
            state: status.phase.as_str().to_owned(),
            status: status_text(&status, Timestamp::now()),
            host_config: HostConfigSummary {
                network_mode: definition.host.network_mode.clone(),
                annotations: definition.host.annotations.clone(),
            },
            network_settings: NetworkSettingsSummary { networks: self.endpoints_of(&definition, &status) },
            mounts: self.mount_points(&definition),
            ..ContainerSummary::default()
        }
    }
}

/// Arguments that hold blanks stand in quotes, as docker shows them.
fn command_line(path: String, args: &[String]) -> String {
    args.iter().fold(path, |mut line, arg| {
        let quote = if arg.contains(' ') { "'" } else { "" };
        line.extend([" ", quote, arg, quote]);
        line
    })
}

/// What health checks found; `none` where there are none.
fn health(status: &Status) -> HealthSummary {
    let none = || HealthSummary { status: "none".to_owned(), failing_streak: 0 };
    status.health.as_ref().map_or_else(none, |health| HealthSummary {
        status: health.status.clone(),
        failing_streak: health.failing_streak,
    })
}

/// `Up 5 seconds`, `Exited (137) 2 minutes ago`, …
fn status_text(status: &Status, now: Timestamp) -> String {
    let since =
        |moment: Option<Timestamp>| human(moment.map_or(Duration::ZERO, |moment| elapsed(moment, now)));
    match status.phase {
        Phase::Running => match &status.health {
            None => format!("Up {}", since(status.started_at)),
            Some(health) if health.status == "starting" => {
                format!("Up {} (health: starting)", since(status.started_at))
            }
            Some(health) => format!("Up {} ({})", since(status.started_at), health.status),
        },
        Phase::Paused => format!("Up {} (Paused)", since(status.started_at)),
        Phase::Restarting => format!("Restarting ({}) {} ago", status.exit_code, since(status.finished_at)),
        Phase::Removing => "Removal In Progress".to_owned(),
        Phase::Dead => "Dead".to_owned(),
        Phase::Creating | Phase::Created => "Created".to_owned(),
        Phase::Exited => format!("Exited ({}) {} ago", status.exit_code, since(status.finished_at)),
    }
}

/// A duration as Go's `units.HumanDuration` says it.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Hours are rounded, as docker does.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (15 * 86400, "2 weeks"),
            (70 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn states_in_words() {
        let now = Timestamp::from_second(1000).unwrap();
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let text = |phase| {
            let status = Status {
                phase,
                exit_code: 137,
                started_at: at(995),
                finished_at: at(880),
                ..Status::default()
            };
            status_text(&status, now)
        };
        assert_eq!(text(Phase::Running), "Up 5 seconds");
        assert_eq!(text(Phase::Paused), "Up 5 seconds (Paused)");
        assert_eq!(text(Phase::Exited), "Exited (137) 2 minutes ago");
        assert_eq!(text(Phase::Created), "Created");
    }
}
