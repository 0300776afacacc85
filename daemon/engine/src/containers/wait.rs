//! Wait: registered when the call returns, level-triggered, so that nobody comes too late.

use berth_api::container::{WaitError, WaitResponse};
use berth_api::options::WaitCondition;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::record::Status;
use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// Registers now; the future ends with the condition.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn wait_container(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<BoxFuture<'static, WaitResponse>> {
        let container = self.containers.find(name)?;
        let mut status = container.watch();
        let ends = status.borrow().ends;
        let wait = async move {
            let met = status.wait_for(|status| is_met(condition, ends, status)).await;
            match met {
                Ok(status) => WaitResponse {
                    status_code: i64::from(status.exit_code),
                    error: status.removal_error.clone().map(|message| WaitError { message }),
                },
                Err(_) => WaitResponse {
                    status_code: -1,
                    error: Some(WaitError { message: "the daemon is going away".to_owned() }),
                },
            }
        };
        Ok(wait.boxed())
    }
}

fn is_met(condition: WaitCondition, ends_before: u64, status: &Status) -> bool {
    let gone = status.removed || status.removal_error.is_some();
    gone || match condition {
        WaitCondition::NotRunning => !status.phase.is_running() || status.ends > ends_before,
        WaitCondition::NextExit => status.ends > ends_before,
        WaitCondition::Removed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Phase;
    use super::*;

    #[test]
    fn conditions() {
        use WaitCondition as W;
        let status = |phase, ends| Status { phase, ends, ..Status::default() };
        assert!(is_met(W::NotRunning, 0, &status(Phase::Created, 0)));
        assert!(!is_met(W::NotRunning, 0, &status(Phase::Running, 0)));
        assert!(is_met(W::NotRunning, 0, &status(Phase::Restarting, 1)));
        assert!(!is_met(W::NextExit, 3, &status(Phase::Exited, 3)));
        assert!(is_met(W::NextExit, 3, &status(Phase::Running, 4)));
        assert!(!is_met(W::Removed, 0, &status(Phase::Exited, 9)));
        for condition in [W::NotRunning, W::NextExit, W::Removed] {
            assert!(is_met(
                condition,
                0,
                &Status { removed: true, phase: Phase::Removing, ..Status::default() }
            ));
        }
    }
}
