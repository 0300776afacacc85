//! Patience: how often and after which pause a request is made again.

use std::time::Duration;

use crate::failure::Failure;
use crate::types::RegistryConfig;

/// No pause is longer than this, whatever the server asks for.
const LONGEST: Duration = Duration::from_secs(60);

/// The retries left for one piece of work.
#[derive(Debug)]
pub(crate) struct Patience {
    left: u32,
    next: Duration,
}

impl Patience {
    pub(crate) fn new(config: &RegistryConfig) -> Self {
        Self { left: config.retries, next: config.back_off }
    }

    /// How long to wait before the next attempt, or the failure back when there is none.
    pub(crate) fn after(&mut self, failure: Failure) -> Result<Duration, Failure> {
        if self.left == 0 || !failure.is_transient() {
            return Err(failure);
        }
        self.left -= 1;
        let pause = failure.retry_after().unwrap_or(self.next).min(LONGEST);
        self.next = (self.next * 2).min(LONGEST);
        tracing::debug!(?failure, ?pause, "trying again");
        Ok(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_the_server_s_wish_counts() {
        let config =
            RegistryConfig { retries: 3, back_off: Duration::from_secs(1), ..RegistryConfig::default() };
        let mut patience = Patience::new(&config);
        let busy = |after: Option<u64>| Failure::of_status(503, b"", after.map(Duration::from_secs));
        assert_eq!(patience.after(busy(None)).unwrap(), Duration::from_secs(1));
        assert_eq!(patience.after(busy(Some(7))).unwrap(), Duration::from_secs(7));
        assert_eq!(patience.after(busy(None)).unwrap(), Duration::from_secs(4));
        assert!(patience.after(busy(None)).is_err());
        assert!(Patience::new(&config).after(Failure::of_status(404, b"", None)).is_err());
    }
}
