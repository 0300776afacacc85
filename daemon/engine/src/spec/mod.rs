//! From what was asked for to the OCI config.json that the shim gets.

pub(crate) mod devices;
pub(crate) mod env;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod user;

use std::path::{Path, PathBuf};

use berth_runtime_client::protocol::NETNS_PLACEHOLDER;
use berth_spec::defaults::{NamespaceMode, docker_spec};
use berth_spec::oci;

use crate::containers::{Definition, MountKind, MountPlan};
use crate::error::{EngineError, Result};
use user::User;

/// Whose namespaces a container uses, resolved to paths.
#[derive(Debug, Clone)]
pub(crate) struct Namespaces {
    pub(crate) network: NamespaceMode,
    pub(crate) pid: NamespaceMode,
    pub(crate) ipc: NamespaceMode,
    /// /dev/shm of the container whose IPC namespace is joined, as a mount that is handed to the shim.
    pub(crate) shm: Option<PathBuf>,
}

impl Namespaces {
    /// The network namespace that travels to the shim by descriptor.
    pub(crate) fn handed_network() -> NamespaceMode {
        NamespaceMode::Path(NETNS_PLACEHOLDER.into())
    }
}

/// What else goes into config.json.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) definition: &'a Definition,
    pub(crate) user: User,
    pub(crate) namespaces: Namespaces,
    /// Volumes, binds, generated files.
    pub(crate) mounts: Vec<oci::Mount>,
    /// Whether the command is run by an init process.
    pub(crate) init: bool,
    /// Variables that the image and the user can replace: those of links.
    pub(crate) environment: Vec<String>,
    pub(crate) host: &'a HostInfo,
    /// Its cgroup.
    pub(crate) cgroup: PathBuf,
    /// The daemon's own host name, for the host's UTS namespace.
    pub(crate) hostname: String,
}

/// What is fixed while the daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct HostInfo {
    /// Bounding set of the daemon, by bit.
    pub(crate) bounding: u64,
    pub(crate) kernel: (u32, u32),
}

/// The capabilities that a host configuration gives.
pub(crate) fn capabilities(
    host: &berth_api::container::HostConfig,
    bounding: u64,
) -> Result<Vec<oci::Capability>> {
    let list = |names: &Option<Vec<String>>| names.clone().unwrap_or_default();
    berth_spec::defaults::capabilities(&list(&host.cap_add), &list(&host.cap_drop), host.privileged, bounding)
        .map_err(|error| EngineError::invalid(error.to_string()))
}

/// The container's config.json.
pub(crate) fn build(inputs: Inputs<'_>) -> Result<oci::Spec> {
    let Inputs { definition, user, namespaces, mut mounts, init, environment, host: facts, cgroup, hostname } =
        inputs;
    let (config, host) = (&definition.config, &definition.host);
    let capabilities = capabilities(host, facts.bounding)?;
    let security = security::parse(host.security_opt.as_deref().unwrap_or_default())?;
    let devices = devices::collect(host)?;
    let (path, args) = definition.command();
    let wanted = [environment.as_slice(), config.env.as_deref().unwrap_or_default()].concat();
    let environment = env::container(&hostname, config.tty, &wanted);
    let init = init.then(|| [crate::init::INSIDE.to_owned(), "--".to_owned()]);
    let host_uts = host.uts_mode == "host";
    let shm_size = match (&namespaces.shm, host.ipc_mode.as_str()) {
        (_, "none") => None,
        (Some(path), _) => {
            mounts.push(bind(path, "/dev/shm", &["rprivate"]));
            None
        }
        _ => Some(host.shm_size),
    };
    let size = host.console_size;
    let spec = docker_spec()
        .args(init.into_iter().flatten().chain([path]).chain(args))
        .env(env::with_home(environment, &user.home))
        .cwd(if config.working_dir.is_empty() { "/" } else { &config.working_dir })
        .user(user.uid, user.gid, user.groups)
        .terminal(config.tty, (size != [0, 0]).then_some((size[0], size[1])))
        .ulimits(resources::ulimits(host.resources.ulimits.as_ref())?)
        .oom_score_adj(i32::try_from(host.oom_score_adj).unwrap_or(0))
        .no_new_privileges(security.no_new_privileges)
        .apparmor_profile(security.apparmor)
        .seccomp(security::seccomp(&security.seccomp, &capabilities, facts.kernel)?)
        .capabilities(capabilities)
        .hostname(Some(hostname).filter(|_| !host_uts))
        .domainname(Some(config.domainname.clone()).filter(|name| !name.is_empty()))
        .readonly_root(host.readonly_rootfs)
        .privileged(host.privileged)
        .writable_cgroups(security.writable_cgroups)
        .mounts(mounts)
        .shm_size(shm_size)
        .cgroup_path(Some(cgroup))
        .resources(resources::limits(&host.resources)?)
        .network(namespaces.network)
        .pid(namespaces.pid)
        .ipc(namespaces.ipc)
        .uts(if host_uts { NamespaceMode::Host } else { NamespaceMode::Private })
        .cgroup(if host.cgroupns_mode == "host" { NamespaceMode::Host } else { NamespaceMode::Private })
        .devices(devices.nodes)
        .device_rules(devices.rules)
        .sysctls(host.sysctls.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect())
        .masked_paths(host.masked_paths.clone())
        .readonly_paths(host.readonly_paths.clone())
        .annotations(
            host.annotations.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
        );
    Ok(spec.build())
}

/// A bind mount with these options beside `rbind`.
pub(crate) fn bind(source: &Path, target: &str, options: &[&str]) -> oci::Mount {
    let options = std::iter::once("rbind").chain(options.iter().copied()).map(str::to_owned).collect();
    let mut mount = oci::Mount::default();
    mount.set_destination(target.into()).set_typ(Some("bind".to_owned()));
    mount.set_source(Some(source.to_owned())).set_options(Some(options));
    mount
}

/// A planned mount whose source is known.
pub(crate) fn mount(plan: &MountPlan, source: &Path) -> oci::Mount {
    if plan.kind == MountKind::Tmpfs {
        let mut mount = oci::Mount::default();
        mount.set_destination((&plan.target).into()).set_typ(Some("tmpfs".to_owned()));
        mount.set_source(Some("tmpfs".into())).set_options(Some(plan.tmpfs_options.clone()));
        return mount;
    }
    let propagation = if plan.propagation.is_empty() { "rprivate" } else { plan.propagation.as_str() };
    let access = match (plan.read_only, plan.read_only_non_recursive || plan.non_recursive) {
        (false, _) => "rw",
        (true, true) => "ro",
        // "rro" makes the mounts below read-only as well.
        (true, false) => "rro",
    };
    let propagation = if plan.kind == MountKind::Image { "rprivate" } else { propagation };
    let mut mount = bind(source, &plan.target, &[access, propagation]);
    if plan.non_recursive
        && let Some(options) = mount.options_mut()
    {
        "bind".clone_into(&mut options[0]);
    }
    mount
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::container::{ContainerConfig, HostConfig};

    fn spec(config: &str, host: &str) -> oci::Spec {
        let definition = Definition {
            id: "abc".into(),
            config: serde_json::from_str::<ContainerConfig>(config).unwrap(),
            host: serde_json::from_str::<HostConfig>(host).unwrap(),
            ..Definition::default()
        };
        let namespaces = Namespaces {
            network: Namespaces::handed_network(),
            pid: NamespaceMode::Private,
            ipc: NamespaceMode::Private,
            shm: None,
        };
        build(Inputs {
            definition: &definition,
            user: User { uid: 5, home: "/h".into(), ..User::default() },
            namespaces,
            mounts: vec![],
            init: false,
            environment: vec![],
            host: &HostInfo { bounding: (1 << 41) - 1, kernel: (6, 1) },
            cgroup: "/berth/abc".into(),
            hostname: "box".into(),
        })
        .unwrap()
    }

    #[test]
    fn what_was_asked_for_arrives() {
        let spec = spec(
            r#"{"Entrypoint":["sh"],"Cmd":["-c","x"],"Tty":true,"Env":["A=b"]}"#,
            r#"{"Memory":67108864,"PidsLimit":7,"CapDrop":["ALL"],"ReadonlyRootfs":true,"Sysctls":{"net.x":"1"},
                "OomScoreAdj":3,"ConsoleSize":[24,80],"CgroupnsMode":"host","ShmSize":1000}"#,
        );
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["sh", "-c", "x"]);
        let env = process.env().as_ref().unwrap();
        assert!(
            ["HOSTNAME=box", "TERM=xterm", "A=b", "HOME=/h"]
                .iter()
                .all(|entry| env.contains(&(*entry).to_owned()))
        );
        assert!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().is_empty());
        assert_eq!(process.user().uid(), 5);
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/berth/abc")));
        assert_eq!(linux.resources().as_ref().unwrap().pids().as_ref().unwrap().limit(), 7);
        assert_eq!(linux.sysctl().as_ref().unwrap()["net.x"], "1");
        assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
        let names: Vec<_> = linux.namespaces().as_ref().unwrap().iter().map(|ns| ns.typ()).collect();
        assert!(!names.contains(&oci::LinuxNamespaceType::Cgroup));
    }

    #[test]
    fn mounts_carry_their_options() {
        let plan =
            MountPlan { target: "/t".into(), read_only: true, non_recursive: true, ..MountPlan::default() };
        assert_eq!(mount(&plan, Path::new("/s")).options().as_ref().unwrap(), &["bind", "ro", "rprivate"]);
        let plan = MountPlan { target: "/t".into(), read_only: true, ..MountPlan::default() };
        assert_eq!(mount(&plan, Path::new("/s")).options().as_ref().unwrap(), &["rbind", "rro", "rprivate"]);
    }
}
