//! Dockerfile instructions as changes of an image's configuration: `docker commit --change`, `docker import --change`.
//! Pure.

use berth_api::container::ContainerConfig;
use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::instruction::{CommandLine, Kind as Instruction};
use berth_oci::{EmptyObject, Healthcheck, RuntimeConfig};

use crate::error::{EngineError, Result};

/// What an image keeps of a container's configuration.
pub(crate) fn runtime_config(config: ContainerConfig) -> RuntimeConfig {
    let some_map = |empty: bool| !empty;
    RuntimeConfig {
        user: config.user,
        exposed_ports: some_map(config.exposed_ports.is_empty())
            .then(|| config.exposed_ports.into_keys().map(|port| (port, EmptyObject {})).collect()),
        env: config.env.unwrap_or_default(),
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        volumes: config
            .volumes
            .filter(|volumes| !volumes.is_empty())
            .map(|volumes| volumes.into_keys().map(|path| (path, EmptyObject {})).collect()),
        working_dir: config.working_dir,
        labels: some_map(config.labels.is_empty()).then(|| config.labels.into_iter().collect()),
        stop_signal: Some(config.stop_signal).filter(|signal| !signal.is_empty()),
        stop_timeout: config.stop_timeout,
        healthcheck: config.healthcheck.map(|check| Healthcheck {
            test: check.test,
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        shell: config.shell,
        on_build: config.on_build,
        args_escaped: config.args_escaped,
        ..RuntimeConfig::default()
    }
}

/// Applies instructions.
pub(crate) fn apply(config: &mut RuntimeConfig, changes: &[String]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let program = berth_dockerfile_parser::read(&format!("FROM scratch\n{}\n", changes.join("\n")));
    if let Some(error) = program.first_error() {
        return Err(EngineError::invalid(error.message.clone()));
    }
    let instructions = program.stages.iter().flat_map(|stage| &stage.instructions);
    for instruction in instructions {
        one(config, &instruction.kind, &instruction.keyword)?;
    }
    Ok(())
}

fn one(config: &mut RuntimeConfig, instruction: &Instruction, keyword: &str) -> Result<()> {
    let lexer = Lexer::new('\\');
    let env = config.env.clone();
    let expand = |word: &str| {
        lexer.word(word, env.as_slice()).map_err(|error| EngineError::invalid(error.to_string()))
    };
    match instruction {
        Instruction::Cmd(command) => config.cmd = Some(words(config, command)),
        Instruction::Entrypoint(command) => config.entrypoint = Some(words(config, command)),
        Instruction::Env(pairs) => {
            for pair in pairs {
                let (key, value) = (expand(&pair.key)?, expand(&pair.value)?);
                config.env.retain(|entry| entry.split('=').next() != Some(key.as_str()));
                config.env.push(format!("{key}={value}"));
            }
        }
        Instruction::Label(pairs) => {
            for pair in pairs {
                config.labels.get_or_insert_default().insert(expand(&pair.key)?, expand(&pair.value)?);
            }
        }
        Instruction::Expose(ports) => {
            for word in ports {
                let ports = berth_dockerfile_parser::expose_ports(&expand(&word.text)?)
                    .map_err(|error| EngineError::invalid(error.to_string()))?;
                let exposed = config.exposed_ports.get_or_insert_default();
                exposed.extend(
                    ports.iter().map(|port| (format!("{}/{}", port.number, port.protocol), EmptyObject {})),
                );
            }
        }
        Instruction::Volume(paths) => {
            for path in paths {
                config.volumes.get_or_insert_default().insert(expand(&path.text)?, EmptyObject {});
            }
        }
        Instruction::User(user) => config.user = expand(&user.text)?,
        Instruction::Workdir(path) => {
            let path = expand(&path.text)?;
            let base = if path.starts_with('/') { String::new() } else { config.working_dir.clone() };
            config.working_dir = crate::containers::clean_path(&format!("{base}/{path}"));
        }
        Instruction::StopSignal(signal) => config.stop_signal = Some(expand(&signal.text)?),
        Instruction::Onbuild(trigger) => config.on_build.get_or_insert_default().push(trigger.clone()),
        Instruction::Healthcheck(check) => {
            config.healthcheck = Some(Healthcheck {
                test: Some(check.test.clone()),
                interval: check.interval,
                timeout: check.timeout,
                start_period: check.start_period,
                start_interval: check.start_interval,
                retries: check.retries,
            });
        }
        _ => return Err(EngineError::invalid(format!("{keyword} is not a valid change command"))),
    }
    Ok(())
}

fn words(config: &RuntimeConfig, command: &CommandLine) -> Vec<String> {
    if !command.shell {
        return command.words.clone();
    }
    let shell = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
    shell.into_iter().chain(command.words.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<RuntimeConfig> {
        let mut config = RuntimeConfig { env: vec!["A=1".into()], ..RuntimeConfig::default() };
        apply(&mut config, &changes.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())?;
        Ok(config)
    }

    #[test]
    fn instructions_change_the_configuration() {
        let config = changed(&[
            r#"CMD ["a","b"]"#,
            "ENTRYPOINT run it",
            "ENV A=2 B=\"$A 3\"",
            "EXPOSE 80 53/udp",
            "LABEL k=v",
            "USER u",
            "VOLUME /data",
            "WORKDIR x",
            "WORKDIR y",
            "STOPSIGNAL INT",
            "ONBUILD RUN x",
        ])
        .unwrap();
        assert_eq!(config.cmd.unwrap(), ["a", "b"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run it"]);
        assert_eq!(config.env, ["A=2", "B=1 3"]);
        assert!(config.exposed_ports.unwrap().contains_key("53/udp"));
        assert_eq!(config.labels.unwrap()["k"], "v");
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("u", "/x/y"));
        assert_eq!(config.stop_signal.as_deref(), Some("INT"));
    }

    #[test]
    fn others_are_refused() {
        assert_eq!(changed(&["RUN x"]).unwrap_err().message(), "RUN is not a valid change command");
        assert!(changed(&["BOGUS x"]).is_err());
    }
}
