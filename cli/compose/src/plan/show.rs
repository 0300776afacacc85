//! The plan as people read it.

use std::fmt;

use super::{Action, ContainerChange, Plan, Reason, ResourceAction, ResourceChange};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for network in &self.networks {
            resource(f, "network", network)?;
        }
        for volume in &self.volumes {
            resource(f, "volume", volume)?;
        }
        for orphan in &self.orphans {
            container(f, orphan)?;
        }
        for service in &self.services {
            for change in &service.containers {
                container(f, change)?;
            }
        }
        if self.is_empty() { writeln!(f, "nothing to do: everything is as the files say") } else { Ok(()) }
    }
}

fn resource(f: &mut fmt::Formatter<'_>, kind: &str, change: &ResourceChange) -> fmt::Result {
    let name = &change.name;
    match &change.action {
        ResourceAction::Keep => writeln!(f, "  keep     {kind} {name}"),
        ResourceAction::KeepDiverged(why) => writeln!(f, "  keep     {kind} {name}\n             {why}"),
        ResourceAction::Create => writeln!(f, "+ create   {kind} {name}"),
        ResourceAction::Recreate(why) => {
            writeln!(f, "± recreate {kind} {name}")?;
            reasons(f, why)
        }
    }
}

fn container(f: &mut fmt::Formatter<'_>, change: &ContainerChange) -> fmt::Result {
    let name = &change.name;
    match &change.action {
        Action::Keep => writeln!(f, "  keep     container {name}"),
        Action::Start => writeln!(f, "  start    container {name}"),
        Action::Restart(why) => writeln!(f, "  restart  container {name}\n             {why}"),
        Action::Create => writeln!(f, "+ create   container {name}"),
        Action::Recreate(why) => {
            writeln!(f, "± recreate container {name}")?;
            reasons(f, why)
        }
        Action::Remove(why) => writeln!(f, "- remove   container {name}\n             {why}"),
        Action::AwaitImage(why) => {
            writeln!(f, "? recreate container {name}, if its image changes\n             {why}")
        }
    }
}

fn reasons(f: &mut fmt::Formatter<'_>, reasons: &[Reason]) -> fmt::Result {
    for Reason { what, change } in reasons {
        match change {
            Some((before, after)) => writeln!(f, "             {what}: {before} → {after}")?,
            None => writeln!(f, "             {what}")?,
        }
    }
    Ok(())
}
