//! The environment of a container's processes. Pure.

/// A container's environment: what docker presets, then what image and user say. A bare `NAME` removes.
pub(crate) fn container(hostname: &str, tty: bool, wanted: &[String]) -> Vec<String> {
    let mut env =
        vec![format!("PATH={}", berth_spec::defaults::DEFAULT_PATH), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    replace_or_append(env, wanted)
}

/// An exec's environment: the container's, then the exec's own.
pub(crate) fn exec(container: Vec<String>, tty: bool, wanted: &[String]) -> Vec<String> {
    let mut env = container;
    if tty && !has(&env, "TERM") {
        env.push("TERM=xterm".to_owned());
    }
    replace_or_append(env, wanted)
}

/// Adds HOME where nobody has set it.
pub(crate) fn with_home(mut env: Vec<String>, home: &str) -> Vec<String> {
    if !has(&env, "HOME") {
        env.push(format!("HOME={home}"));
    }
    env
}

fn has(env: &[String], name: &str) -> bool {
    env.iter().any(|entry| key(entry) == name)
}

fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn replace_or_append(mut env: Vec<String>, wanted: &[String]) -> Vec<String> {
    for entry in wanted {
        let position = env.iter().position(|known| key(known) == key(entry));
        match (position, entry.contains('=')) {
            (Some(at), true) => env[at].clone_from(entry),
            (Some(at), false) => {
                env.remove(at);
            }
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ones_replace_and_bare_names_remove() {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let env = container("box", true, &own(&["A=1", "PATH=/bin", "HOSTNAME", "A=2", "B"]));
        assert_eq!(env, ["PATH=/bin", "TERM=xterm", "A=2"]);
        let env = exec(env, true, &own(&["A=3", "TERM=vt100"]));
        assert_eq!(env, ["PATH=/bin", "TERM=vt100", "A=3"]);
        assert_eq!(with_home(own(&["HOME=/x"]), "/root"), ["HOME=/x"]);
        assert_eq!(with_home(vec![], "/root"), ["HOME=/root"]);
    }
}
