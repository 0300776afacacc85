//! The restart policy: what to do when a container ends. Pure.

use std::time::Duration;

use berth_api::container::RestartPolicy;

use crate::error::{EngineError, Result};

/// The first pause; doubles with every quick end.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// Who has run so long has not ended quickly.
const STEADY: Duration = Duration::from_secs(10);

/// One end of a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) exit_code: i32,
    pub(crate) ran_for: Duration,
    /// Restarts since the last start by a user.
    pub(crate) restarts: i64,
    /// Quick ends in a row before this one.
    pub(crate) quick_failures: u32,
    /// A user stopped it.
    pub(crate) stopped: bool,
}

/// Checks a policy as a user gave it; an empty name is `no`.
pub(crate) fn validate(policy: &mut RestartPolicy) -> Result<()> {
    let refuse = |reason: String| Err(EngineError::invalid(format!("invalid restart policy: {reason}")));
    match policy.name.as_str() {
        "" => {
            if policy.maximum_retry_count != 0 {
                return refuse("maximum retry count can only be used with 'on-failure'".to_owned());
            }
            "no".clone_into(&mut policy.name);
            Ok(())
        }
        "no" | "always" | "unless-stopped" => match policy.maximum_retry_count {
            0 => Ok(()),
            count if count < 0 => refuse(
                "maximum retry count can only be used with 'on-failure' and cannot be negative".to_owned(),
            ),
            _ => refuse("maximum retry count can only be used with 'on-failure'".to_owned()),
        },
        "on-failure" if policy.maximum_retry_count < 0 => {
            refuse("maximum retry count cannot be negative".to_owned())
        }
        "on-failure" => Ok(()),
        other => refuse(format!(
            "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

/// The pause after which the container is started again, if it is.
pub(crate) fn pause(policy: &RestartPolicy, end: &End) -> Option<Duration> {
    let wanted = match policy.name.as_str() {
        _ if end.stopped => false,
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let left = policy.maximum_retry_count == 0 || end.restarts < policy.maximum_retry_count;
            end.exit_code != 0 && left
        }
        _ => false,
    };
    let doublings = if end.ran_for >= STEADY { 0 } else { end.quick_failures.min(16) };
    wanted.then(|| (FIRST * 2u32.pow(doublings)).min(LONGEST))
}

/// Whether the end was a quick one.
pub(crate) fn is_quick(ran_for: Duration) -> bool {
    ran_for < STEADY
}

/// Whether a container that was found ended after the daemon came back is to be started.
pub(crate) fn at_daemon_start(policy: &RestartPolicy, stopped_by_user: bool) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !stopped_by_user,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, count: i64) -> RestartPolicy {
        RestartPolicy { name: name.into(), maximum_retry_count: count }
    }

    const CRASH: End =
        End { exit_code: 1, ran_for: Duration::from_secs(1), restarts: 0, quick_failures: 0, stopped: false };

    #[test]
    fn policies_decide() {
        assert_eq!(pause(&policy("no", 0), &CRASH), None);
        assert_eq!(pause(&policy("always", 0), &CRASH), Some(FIRST));
        assert_eq!(pause(&policy("always", 0), &End { stopped: true, ..CRASH }), None);
        assert_eq!(pause(&policy("on-failure", 0), &End { exit_code: 0, ..CRASH }), None);
        assert!(pause(&policy("on-failure", 2), &End { restarts: 1, ..CRASH }).is_some());
        assert_eq!(pause(&policy("on-failure", 2), &End { restarts: 2, ..CRASH }), None);
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_start_again_after_a_steady_run() {
        let after = |quick_failures, secs| {
            let end = End { quick_failures, ran_for: Duration::from_secs(secs), ..CRASH };
            pause(&policy("always", 0), &end).unwrap()
        };
        assert_eq!(after(3, 1), Duration::from_millis(800));
        assert_eq!(after(40, 1), LONGEST);
        assert_eq!(after(40, 11), FIRST);
    }

    #[test]
    fn unless_stopped_remembers_the_stop() {
        assert!(at_daemon_start(&policy("always", 0), true));
        assert!(!at_daemon_start(&policy("unless-stopped", 0), true));
        assert!(at_daemon_start(&policy("unless-stopped", 0), false));
        assert!(!at_daemon_start(&policy("on-failure", 0), false));
    }

    #[test]
    fn bad_policies_are_named() {
        let error = validate(&mut policy("bogus", 0)).unwrap_err();
        assert_eq!(
            error.message(),
            "invalid restart policy: unknown policy 'bogus'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        );
        assert!(validate(&mut policy("always", 1)).is_err());
        let mut empty = policy("", 0);
        validate(&mut empty).unwrap();
        assert_eq!(empty.name, "no");
    }
}
