//! The engine itself: what it holds, how it starts and ends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_builder::{Builder, BuilderDirs};
use berth_network::{NetworkConfig, NetworkController};
use berth_oci::Digest;
use berth_registry::{Registry, RegistryConfig};
use berth_runtime_client::ShimSpawner;
use berth_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build_steps::{EngineSandboxes, Owner};
use crate::config::EngineConfig;
use crate::containers::Containers;
use crate::containers::exec::Exec;
use crate::containers::validate::HostFacts;
use crate::db::Db;
use crate::dns::NameService;
use crate::error::{EngineError, IoContext as _, Result};
use crate::events::{EventBus, EventStream};
use crate::ids;
use crate::pods::Pods;
use crate::spec::HostInfo;
use crate::volumes::Volumes;

/// The engine. Shared by all clients; see the crate's head for what is where.
pub struct Engine {
    pub(crate) config: EngineConfig,
    /// Identity of the daemon, kept in the database.
    pub(crate) id: String,
    pub(crate) db: Db,
    pub(crate) store: Store,
    pub(crate) network: Arc<NetworkController>,
    pub(crate) names: NameService,
    pub(crate) registry: Registry,
    pub(crate) spawner: ShimSpawner,
    pub(crate) builder: Builder,
    /// Where the builder finds this engine.
    owner_of_steps: Owner,
    /// Builds under way that `cancel_build` can name.
    pub(crate) builds: Mutex<HashMap<String, CancellationToken>>,
    pub(crate) events: EventBus,
    pub(crate) containers: Containers,
    pub(crate) pods: Arc<Pods>,
    pub(crate) execs: Mutex<HashMap<String, Arc<Exec>>>,
    pub(crate) volumes: Arc<Volumes>,
    /// Held while a number for a project quota is chosen.
    pub(crate) projects: Mutex<()>,
    pub(crate) host: HostInfo,
    pub(crate) facts: HostFacts,
    /// Work that must be finished before the daemon ends.
    pub(crate) tasks: TaskTracker,
    /// Set when the daemon begins to end: restart policies rest.
    pub(crate) ending: CancellationToken,
    /// Set when it has ended: containers are left to their shims.
    pub(crate) closed: CancellationToken,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("root", &self.config.root).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the state below `config.root`, finds the containers of an earlier daemon again and starts those whose
    /// restart policy demands it.
    ///
    /// # Errors
    /// When a directory, the image store or the database cannot be opened. That single containers could not be
    /// recovered is told in the log, and by their state.
    pub async fn start(config: EngineConfig) -> Result<Arc<Self>> {
        let engine = tokio::task::spawn_blocking(move || Self::open(config)).await??;
        let engine = Arc::new(engine);
        engine.owner_of_steps.get_or_init(|| Arc::downgrade(&engine));
        engine.recover().await?;
        engine.recover_pods().await?;
        engine.tasks.spawn(engine.builder.recover());
        // Only now it is known which images containers use.
        engine.limit_images();
        Ok(engine)
    }

    fn open(config: EngineConfig) -> Result<Self> {
        config.check_cgroups()?;
        config.block_io_classes.as_deref().map_or(Ok(()), crate::pods::check_block_io_classes)?;
        for dir in
            [config.root.join("containers"), config.root.join("builds"), config.run_root.join("containers")]
        {
            std::fs::create_dir_all(&dir).during("create", &dir)?;
        }
        restrict(&config.root)?;
        restrict(&config.run_root)?;
        if config.defaults.size.is_some() {
            crate::containers::size::check(&config.root)?;
        }
        crate::init::install(&config.root)?;
        let store = Store::open(&config.root)?;
        let db = Db::open(&config.root.join("engine.db"))?;
        let id = match db.meta("id")? {
            Some(id) => id,
            None => {
                let id = daemon_id();
                db.set_meta("id", &id)?;
                id
            }
        };
        let network = Arc::new(NetworkController::open(NetworkConfig {
            state_dir: config.root.join("network"),
            instance: instance(&config.root),
            default_bridge: config.default_bridge.clone(),
            spare_sandboxes: 2,
        })?);
        let registry_config = RegistryConfig {
            insecure: config.insecure_registries.clone(),
            host_dirs: config.registry_dirs.clone(),
            ..RegistryConfig::default()
        };
        let registry = Registry::new(store.clone(), registry_config);
        let spawner = ShimSpawner::new(config.shim_binary.clone());
        let volumes = Arc::new(Volumes::open(config.root.join("volumes"), &db)?);
        let owner_of_steps = Owner::default();
        let sandboxes =
            EngineSandboxes::new(Arc::clone(&network), config.dns.clone(), Arc::clone(&owner_of_steps));
        let dirs = BuilderDirs {
            builds: config.root.join("builds"),
            run: config.run_root.join("builds"),
            cache_limit: config.build_cache_cap,
        };
        let builder = Builder::new(
            store.clone(),
            spawner.clone(),
            Arc::new(sandboxes),
            Arc::new(config.cdi.clone()),
            dirs,
        );
        let names = NameService::new(config.run_root.clone(), config.dns_program.clone());
        Ok(Self {
            id,
            db,
            store,
            network,
            names,
            registry,
            spawner,
            builder,
            owner_of_steps,
            builds: Mutex::default(),
            events: EventBus::new(),
            containers: Containers::default(),
            pods: Arc::default(),
            execs: Mutex::default(),
            volumes,
            projects: Mutex::default(),
            host: HostInfo { bounding: bounding_set(), kernel: crate::system::kernel_numbers() },
            facts: HostFacts { cgroup_v2: crate::system::is_cgroup_v2(), cpus: crate::system::cpus() },
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            closed: CancellationToken::new(),
            config,
        })
    }

    /// Who makes the cgroups of containers.
    #[must_use]
    pub fn cgroup_driver(&self) -> crate::CgroupDriver {
        self.config.cgroup_driver
    }

    /// The directory of the state.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.config.root
    }

    /// Where what ends with a boot is kept.
    #[must_use]
    pub fn run_root(&self) -> &Path {
        &self.config.run_root
    }

    /// What the daemon is known by.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where a container's log and generated files are.
    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.config.root.join("containers").join(id)
    }

    /// Where a container's shim has its socket and records.
    pub(crate) fn run_dir(&self, id: &str) -> PathBuf {
        self.config.run_root.join("containers").join(id)
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.container_dir(id).join(format!("{id}-json.log"))
    }

    pub(crate) fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events, past and future.
    ///
    /// # Errors
    /// A filter that is unknown.
    pub fn events(&self, query: berth_api::options::Events) -> Result<EventStream> {
        Ok(self.events.subscribe(query)?.into_stream())
    }

    /// Runs an operation to its end, whatever becomes of the caller.
    pub(crate) async fn detached<T, F>(self: &Arc<Self>, operation: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.tasks.spawn(operation).await?
    }

    /// Runs blocking work in a thread of its own.
    pub(crate) async fn blocking<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Self>) -> Result<T> + Send + 'static,
    {
        let engine = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&engine)).await?
    }

    /// Ends the engine: waits for operations under way and closes what it has open. Containers go on under their
    /// shims, unless they are to be stopped; then nothing of the daemon's stays on the host.
    ///
    /// # Errors
    /// What could not be stopped or taken away, all in one.
    pub async fn shutdown(self: &Arc<Self>, stop_containers: bool) -> Result<()> {
        self.ending.cancel();
        let mut errors = Vec::new();
        if stop_containers {
            errors.extend(self.stop_all().await);
            errors.extend(self.stop_all_pods().await);
        }
        self.tasks.close();
        self.tasks.wait().await;
        self.closed.cancel();
        let ended = self
            .blocking(move |engine| {
                let network = engine.network.shutdown(stop_containers).err().unwrap_or_default();
                let mut errors: Vec<EngineError> = network.into_iter().map(Into::into).collect();
                if stop_containers {
                    errors.extend(engine.end_names().err());
                }
                errors.extend(engine.store.sync().err().map(EngineError::from));
                Ok(errors)
            })
            .await;
        match ended {
            Ok(more) => errors.extend(more),
            Err(error) => errors.push(error),
        }
        EngineError::collect("shutting down", errors).map_or(Ok(()), Err)
    }
}

/// Containers' files are nobody's business but root's; yet a process with another user must reach its own mounts.
fn restrict(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).during("restrict", dir)
}

/// A name for this daemon's bridges and rules: daemons with different roots do not meet.
fn instance(root: &Path) -> String {
    let path = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    Digest::of(path.as_os_str().as_encoded_bytes()).hex()[..8].to_owned()
}

/// The shape of a UUID, as docker has it.
fn daemon_id() -> String {
    let id = ids::random();
    format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..32])
}

/// The capabilities that this process could give away, by bit.
fn bounding_set() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_are_told_apart() {
        assert_ne!(instance(Path::new("/a")), instance(Path::new("/b")));
        assert!(instance(Path::new("/a")).bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(daemon_id().len(), 36);
    }

    #[test]
    fn the_daemon_has_capabilities() {
        assert_ne!(bounding_set(), 0);
    }
}
