//! Hooks (config.md, "POSIX-platform Hooks").

use std::time::Duration;

use crate::error::SpecError;
use crate::oci;
use crate::plan::{HookPlan, HookPlans};

use super::{paths, process};

pub(super) fn plan(hooks: Option<&oci::Hooks>) -> Result<HookPlans, SpecError> {
    let Some(hooks) = hooks else { return Ok(HookPlans::default()) };
    #[allow(deprecated)] // Deprecated for authors of configurations; a runtime MUST still run them.
    let prestart = hooks.prestart();
    Ok(HookPlans {
        prestart: list("prestart", prestart)?,
        create_runtime: list("createRuntime", hooks.create_runtime())?,
        create_container: list("createContainer", hooks.create_container())?,
        start_container: list("startContainer", hooks.start_container())?,
        poststart: list("poststart", hooks.poststart())?,
        poststop: list("poststop", hooks.poststop())?,
    })
}

fn list(point: &str, hooks: &Option<Vec<oci::Hook>>) -> Result<Vec<HookPlan>, SpecError> {
    hooks.iter().flatten().enumerate().map(|(at, hook)| one(&format!("hooks.{point}[{at}]"), hook)).collect()
}

fn one(field: &str, hook: &oci::Hook) -> Result<HookPlan, SpecError> {
    paths::absolute(&format!("{field}.path"), hook.path())?;
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
            _ => {
                return Err(SpecError::new(
                    format!("{field}.timeout"),
                    format!("{seconds} is not a number of seconds above zero"),
                ));
            }
        },
    };
    let mut args = process::c_strings(&format!("{field}.args"), hook.args().as_deref().unwrap_or_default())?;
    if args.is_empty() {
        args = process::c_strings(&format!("{field}.path"), &[hook.path().to_string_lossy().into_owned()])?;
    }
    Ok(HookPlan {
        path: hook.path().clone(),
        args,
        env: hook.env().as_ref().map(|env| process::c_strings(&format!("{field}.env"), env)).transpose()?,
        timeout,
    })
}
