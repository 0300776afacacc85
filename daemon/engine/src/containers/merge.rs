//! What an image presets and what a user says, as one configuration. Pure.

use berth_api::Empty;
use berth_api::container::{ContainerConfig, HealthConfig};
use berth_oci::ImageConfig;

use crate::error::{EngineError, Result};

/// Fills in what the user left open.
pub(crate) fn merge(mut user: ContainerConfig, image: &ImageConfig) -> Result<ContainerConfig> {
    let preset = image.config.clone().unwrap_or_default();
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    if user.user.is_empty() {
        user.user = preset.user;
    }
    for port in preset.exposed_ports.iter().flatten() {
        user.exposed_ports.entry(port.0.clone()).or_insert(Empty);
    }
    let env = user.env.get_or_insert_default();
    let named: Vec<String> = env.iter().map(|entry| key(entry)).collect();
    env.extend(preset.env.into_iter().filter(|entry| !named.contains(&key(entry))));
    for (name, value) in preset.labels.into_iter().flatten() {
        user.labels.entry(name).or_insert(value);
    }
    if user.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if user.cmd.as_ref().is_none_or(Vec::is_empty) {
            user.cmd = preset.cmd;
            user.args_escaped = preset.args_escaped;
        }
        if user.entrypoint.is_none() {
            user.entrypoint = preset.entrypoint;
        }
    }
    // [""] says: not the image's.
    if user.entrypoint.as_ref().is_some_and(|words| words.len() == 1 && words[0].is_empty()) {
        user.entrypoint = None;
    }
    if user.working_dir.is_empty() {
        user.working_dir = preset.working_dir;
    }
    // An empty map of the user's is none, as for docker: what is shown is then the image's.
    let asked = user.volumes.take().unwrap_or_default();
    let preset_volumes = preset.volumes.map(|volumes| volumes.into_iter().map(|(path, _)| (path, Empty)));
    user.volumes = match preset_volumes {
        Some(preset) => Some(preset.chain(asked).collect()),
        None => Some(asked).filter(|volumes| !volumes.is_empty()),
    };
    if user.stop_signal.is_empty() {
        user.stop_signal = preset.stop_signal.unwrap_or_default();
    }
    user.stop_timeout = user.stop_timeout.or(preset.stop_timeout);
    user.shell = user.shell.or(preset.shell);
    user.healthcheck = merge_health(user.healthcheck, preset.healthcheck);
    let words = user.entrypoint.iter().flatten().chain(user.cmd.iter().flatten());
    if words.count() == 0 {
        return Err(EngineError::invalid("no command specified"));
    }
    Ok(user)
}

fn merge_health(user: Option<HealthConfig>, image: Option<berth_oci::Healthcheck>) -> Option<HealthConfig> {
    let image = image.map(|preset| HealthConfig {
        test: preset.test,
        interval: preset.interval,
        timeout: preset.timeout,
        start_period: preset.start_period,
        start_interval: preset.start_interval,
        retries: preset.retries,
    });
    let (Some(user), Some(image)) = (&user, &image) else { return user.or(image) };
    let number = |own: i64, preset: i64| if own == 0 { preset } else { own };
    Some(HealthConfig {
        test: user.test.clone().filter(|test| !test.is_empty()).or_else(|| image.test.clone()),
        interval: number(user.interval, image.interval),
        timeout: number(user.timeout, image.timeout),
        start_period: number(user.start_period, image.start_period),
        start_interval: number(user.start_interval, image.start_interval),
        retries: number(user.retries, image.retries),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageConfig {
        let json = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{
            "Env":["PATH=/bin","A=image"],"Cmd":["serve"],"Entrypoint":["/init"],"User":"app","WorkingDir":"/srv",
            "Labels":{"l":"image","m":"image"},"ExposedPorts":{"80/tcp":{}},"Volumes":{"/data":{}},"StopSignal":"SIGINT",
            "Healthcheck":{"Test":["CMD","true"],"Interval":5,"Retries":2}}}"#;
        ImageConfig::parse(json.as_bytes()).unwrap()
    }

    fn user(json: &str) -> ContainerConfig {
        merge(serde_json::from_str(json).unwrap(), &image()).unwrap()
    }

    fn words(config: &ContainerConfig) -> Vec<&str> {
        config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).map(String::as_str).collect()
    }

    #[test]
    fn what_is_left_open_comes_from_the_image() {
        let config = user("{}");
        assert_eq!(words(&config), ["/init", "serve"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("app", "/srv"));
        assert_eq!(config.stop_signal, "SIGINT");
        assert!(config.volumes.unwrap().contains_key("/data"));
        let bare: ContainerConfig = serde_json::from_str(r#"{"Cmd":["x"],"Volumes":{}}"#).unwrap();
        let json =
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}"#;
        assert_eq!(merge(bare, &ImageConfig::parse(json.as_bytes()).unwrap()).unwrap().volumes, None);
        assert!(config.exposed_ports.contains_key("80/tcp"));
    }

    #[test]
    fn what_is_said_wins() {
        let config = user(r#"{"Env":["A=user","B"],"Labels":{"l":"user"},"User":"root"}"#);
        assert_eq!(config.env.unwrap(), ["A=user", "B", "PATH=/bin"]);
        assert_eq!((config.labels["l"].as_str(), config.labels["m"].as_str()), ("user", "image"));
        assert_eq!(config.user, "root");
    }

    #[test]
    fn an_entrypoint_of_ones_own_drops_the_images_command() {
        assert_eq!(words(&user(r#"{"Cmd":["x"]}"#)), ["/init", "x"]);
        assert_eq!(words(&user(r#"{"Entrypoint":["sh"]}"#)), ["sh"]);
        assert_eq!(words(&user(r#"{"Entrypoint":["sh"],"Cmd":["-c"]}"#)), ["sh", "-c"]);
        let removed = user(r#"{"Entrypoint":[""],"Cmd":["x"]}"#);
        assert_eq!((words(&removed), removed.entrypoint.is_none()), (vec!["x"], true));
        let nothing = serde_json::from_str(r#"{"Entrypoint":[""]}"#).unwrap();
        assert_eq!(merge(nothing, &image()).unwrap_err().message(), "no command specified");
    }

    #[test]
    fn health_is_merged_field_by_field() {
        let health = user(r#"{"Healthcheck":{"Interval":9}}"#).healthcheck.unwrap();
        assert_eq!((health.interval, health.retries), (9, 2));
        assert_eq!(health.test.unwrap(), ["CMD", "true"]);
        assert_eq!(user(r#"{"Healthcheck":{"Test":["NONE"]}}"#).healthcheck.unwrap().test.unwrap(), ["NONE"]);
    }
}
