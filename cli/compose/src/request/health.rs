//! Health checks.

use berth_client::api::{ApiVersion, container::HealthConfig};

use crate::model::Service;

/// API that has `start_interval`.
const START_INTERVAL: ApiVersion = ApiVersion::new(1, 44);

pub(super) fn of(service: &Service, api: ApiVersion) -> Result<Option<HealthConfig>, String> {
    let Some(check) = &service.healthcheck else { return Ok(None) };
    if check.start_interval.is_some() && api < START_INTERVAL {
        return Err(
            "can't set healthcheck.start_interval as feature require Docker Engine v25 or later".to_owned()
        );
    }
    let nanos = |time: Option<crate::model::Duration>| time.map_or(0, |time| time.0);
    let test = if check.disable { vec!["NONE".to_owned()] } else { check.test.0.clone() };
    Ok(Some(HealthConfig {
        test: Some(test).filter(|test| !test.is_empty()),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
        retries: check.retries.map_or(0, |retries| i64::try_from(retries).unwrap_or(i64::MAX)),
    }))
}
