//! `--device`, `--ulimit`, `--blkio-*`, `--restart`, `--gpus`: the structured limits.

use anyhow::{Context, Result, bail};
use berth_api::container::{
    DeviceMapping, DeviceRequest, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice,
};

use crate::output::units::parse_memory;

/// `/dev/x[:/dev/y][:rwm]`.
pub(crate) fn device(spec: &str) -> Result<DeviceMapping> {
    let parts: Vec<&str> = spec.split(':').collect();
    let permissions = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let (host, container, rwm) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, rwm] if permissions(rwm) => (*host, *host, *rwm),
        [host, container] => (*host, *container, "rwm"),
        [host, container, rwm] if permissions(rwm) => (*host, *container, *rwm),
        _ => bail!("--device {spec}: expected path[:path in the container][:permissions out of r, w, m]"),
    };
    if !container.starts_with('/') {
        bail!("--device {spec}: {container:?} is not an absolute path");
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: container.to_owned(),
        cgroup_permissions: rwm.to_owned(),
    })
}

/// `nofile=1024:2048`.
pub(crate) fn ulimit(spec: &str) -> Result<Ulimit> {
    let wrong = || format!("--ulimit {spec}: expected name=soft[:hard], such as nofile=1024:2048");
    let (name, limits) = spec.split_once('=').with_context(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard): (i64, i64) = (soft.parse().with_context(wrong)?, hard.parse().with_context(wrong)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        bail!("--ulimit {spec}: the soft limit is above the hard one");
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// `/dev/sda:1mb`.
pub(crate) fn throttle(flag: &str, spec: &str, in_bytes: bool) -> Result<ThrottleDevice> {
    let wrong = || format!("--{flag} {spec}: expected path:rate");
    let (path, rate) = spec.rsplit_once(':').with_context(wrong)?;
    let rate = if in_bytes {
        u64::try_from(parse_memory(rate).map_err(anyhow::Error::msg).with_context(wrong)?)
            .with_context(wrong)?
    } else {
        rate.parse().with_context(wrong)?
    };
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// `/dev/sda:100`.
pub(crate) fn weight(spec: &str) -> Result<WeightDevice> {
    let wrong = || format!("--blkio-weight-device {spec}: expected path:weight");
    let (path, weight) = spec.rsplit_once(':').with_context(wrong)?;
    Ok(WeightDevice { path: path.to_owned(), weight: weight.parse().with_context(wrong)? })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:times]`.
pub(crate) fn restart(spec: &str) -> Result<RestartPolicy> {
    let (name, times) = spec.split_once(':').map_or((spec, None), |(n, t)| (n, Some(t)));
    match (name, times) {
        ("no" | "always" | "unless-stopped" | "on-failure", None) | ("on-failure", Some(_)) => {}
        _ => bail!("--restart {spec}: expected no, always, unless-stopped or on-failure[:times]"),
    }
    let maximum_retry_count = times.map(str::parse).transpose();
    let maximum_retry_count =
        maximum_retry_count.with_context(|| format!("--restart {spec}: no number of times"))?;
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count: maximum_retry_count.unwrap_or(0) })
}

/// `all`, a count, or `device=0,1`.
pub(crate) fn gpus(spec: &str) -> Result<DeviceRequest> {
    let mut request =
        DeviceRequest { capabilities: Some(vec![vec!["gpu".to_owned()]]), ..DeviceRequest::default() };
    match spec.trim_matches('"').split_once('=') {
        Some(("device", ids)) => request.device_ids = Some(ids.split(',').map(str::to_owned).collect()),
        Some(_) => bail!("--gpus {spec}: expected all, a number, or device=id[,id…]"),
        None if spec == "all" => request.count = -1,
        None => {
            request.count =
                spec.parse().with_context(|| format!("--gpus {spec}: expected all or a number"))?
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_limits() {
        let all =
            |spec: &str| device(spec).map(|d| (d.path_on_host, d.path_in_container, d.cgroup_permissions));
        assert_eq!(all("/dev/a").expect("valid"), ("/dev/a".into(), "/dev/a".into(), "rwm".into()));
        assert_eq!(all("/dev/a:r").expect("valid"), ("/dev/a".into(), "/dev/a".into(), "r".into()));
        assert_eq!(all("/dev/a:/dev/b:rw").expect("valid"), ("/dev/a".into(), "/dev/b".into(), "rw".into()));
        assert!(device("/dev/a:/dev/b:x").is_err() && device("/dev/a:b").is_err());
        let limit = ulimit("nofile=10:20").expect("valid");
        assert_eq!((limit.soft, limit.hard), (10, 20));
        assert!(ulimit("nofile=20:10").is_err() && ulimit("nofile").is_err());
        assert_eq!(throttle("device-read-bps", "/dev/sda:1mb", true).expect("valid").rate, 1 << 20);
    }

    #[test]
    fn restart_policies() {
        assert_eq!(restart("on-failure:3").expect("valid").maximum_retry_count, 3);
        assert!(restart("always").is_ok());
        for wrong in ["sometimes", "always:3", "on-failure:x"] {
            assert!(restart(wrong).is_err(), "{wrong}");
        }
    }
}
