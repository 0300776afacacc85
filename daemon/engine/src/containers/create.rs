//! Create: check, resolve the image, merge, write the intent down, make the snapshot and the volumes.
//!
//! What fails half-way is undone; what a crash interrupts is found as `creating` and undone at the next start.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use berth_api::container::{CreateRequest, CreateResponse};
use berth_api::network::EndpointSettings;
use berth_oci::DiffId;
use berth_store::Image;
use berth_sys::path::open_in_root;
use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::machine::{Change, Phase};
use super::mounts::{self, MountKind, MountPlan};
use super::record::{Definition, Status};
use super::registry::Reserved;
use super::{Container, merge, ports, secrets, validate};
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Kind, Result};
use crate::volumes::{self, Pin, Wanted};
use crate::{ids, names, spec};

/// How often a random name is tried.
const NAME_TRIES: u32 = 8;

impl Engine {
    /// Makes a container. An empty name draws one.
    ///
    /// # Errors
    /// A name that is taken or bad, an image that is not there, options that contradict each other or are not
    /// supported; nothing is left then.
    pub async fn create_container(
        self: &Arc<Self>,
        name: &str,
        platform: &str,
        request: CreateRequest,
    ) -> Result<CreateResponse> {
        let (engine, name, platform) = (Arc::clone(self), name.to_owned(), platform.to_owned());
        self.detached(
            async move { engine.blocking(move |engine| engine.create(&name, &platform, request)).await },
        )
        .await
    }

    fn create(&self, name: &str, platform: &str, request: CreateRequest) -> Result<CreateResponse> {
        let id = ids::random();
        let (mut config, mut host) = (request.config, request.host_config.unwrap_or_default());
        let warnings = validate::complete(&mut config, &mut host, &self.facts, &self.config)?;
        spec::capabilities(&host, self.host.bounding)?;
        spec::security::parse(host.security_opt.as_deref().unwrap_or_default())?;
        spec::resources::ulimits(host.resources.ulimits.as_ref())?;
        spec::devices::collect(&host)?;
        // The image first: a client that hears that it is missing pulls it and asks again.
        let image = self.find_image(&config.image, platform)?;
        let reserved = self.reserve_name(name, &id)?;
        let mut config = merge::merge(config, &self.store.images().config_of(&image.id)?)?;
        ports::normalize(&mut config, &mut host)?;
        if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
            config.working_dir = format!("/{}", config.working_dir);
        }
        if config.network_disabled {
            "none".clone_into(&mut host.network_mode);
        }
        self.resolve_donors(&mut host)?;
        let networks = self.wanted_networks(&host, request.networking_config.unwrap_or_default(), &config)?;
        if config.hostname.is_empty() {
            config.hostname = match host.network_mode.as_str() {
                "host" => crate::system::hostname(),
                _ if host.uts_mode == "host" => crate::system::hostname(),
                _ => ids::short(&id).to_owned(),
            };
        }
        let links = self.resolve_links(&host.network_mode, host.links.as_ref())?;
        // Inspect shows them as they stand then.
        host.links = None;
        let inherited = self.inherited_mounts(host.volumes_from.as_deref().unwrap_or_default())?;
        let plans = mounts::plan(&host, config.volumes.iter().flatten().map(|(path, _)| path), inherited)?;
        secrets::forget(&mut host);
        let definition = Definition {
            id,
            name: reserved.name.clone(),
            created: Timestamp::now(),
            image_id: image.id.to_string(),
            config,
            host,
            networks,
            mounts: plans,
            links,
        };
        self.make(definition, &image.layers, reserved).map(|id| CreateResponse { id, warnings })
    }

    fn reserve_name(&self, given: &str, id: &str) -> Result<Reserved<'_>> {
        if !given.is_empty() {
            return self.containers.reserve(names::container(given)?, id);
        }
        let mut attempt = 0;
        loop {
            match self.containers.reserve(&names::random(attempt), id) {
                Err(_) if attempt < NAME_TRIES => attempt += 1,
                other => return other,
            }
        }
    }

    fn find_image(&self, wanted: &str, platform: &str) -> Result<Image> {
        if wanted.is_empty() {
            return Err(EngineError::invalid("config cannot be empty in order to create a container"));
        }
        self.image_for(wanted, platform)
    }

    /// `container:<name>` is kept as `container:<id>`, so that a rename changes nothing.
    fn resolve_donors(&self, host: &mut berth_api::container::HostConfig) -> Result<()> {
        for mode in [&mut host.network_mode, &mut host.pid_mode, &mut host.ipc_mode] {
            if let Some(name) = mode.strip_prefix("container:") {
                // Clients take a "not found" for a missing image, and pull.
                let donor = self.containers.find(name).map_err(|error| match error.kind() {
                    Kind::NotFound => EngineError::invalid(error.message().to_owned()),
                    _ => error,
                })?;
                *mode = format!("container:{}", donor.id);
            }
        }
        Ok(())
    }

    /// The networks to join, by name.
    fn wanted_networks(
        &self,
        host: &berth_api::container::HostConfig,
        asked: berth_api::network::NetworkingConfig,
        config: &berth_api::container::ContainerConfig,
    ) -> Result<BTreeMap<String, EndpointSettings>> {
        let mut networks = BTreeMap::new();
        if host.network_mode.starts_with("container:") {
            if !asked.endpoints_config.is_empty() {
                return Err(EngineError::invalid(
                    "conflicting options: cannot attach a container that shares another's network to further networks",
                ));
            }
            return Ok(networks);
        }
        // Clients take a "not found" for a missing image, and pull.
        let found = |name: &str| {
            let network = self.network.network(name).map_err(|error| EngineError::invalid(error.to_string()));
            network.map(|network| network.name)
        };
        let primary = match host.network_mode.as_str() {
            mode @ ("bridge" | "host" | "none") => mode.to_owned(),
            mode => found(mode)?,
        };
        let mut first = None;
        for (name, settings) in asked.endpoints_config {
            let settings = settings.unwrap_or_default();
            let name = match name.as_str() {
                "default" => "bridge".to_owned(),
                name if name == host.network_mode => primary.clone(),
                name => found(name)?,
            };
            crate::networks::check_endpoint(&name, &settings)?;
            if name == primary {
                first = Some(settings);
            } else if matches!(primary.as_str(), "host" | "none") || matches!(name.as_str(), "host" | "none")
            {
                return Err(EngineError::invalid(
                    "container sharing network namespace with another container or host cannot be connected to any \
                     other network",
                ));
            } else {
                networks.insert(name, settings);
            }
        }
        let mut settings = first.unwrap_or_default();
        if settings.mac_address.is_empty() {
            settings.mac_address.clone_from(&config.mac_address);
        }
        crate::networks::check_endpoint(&primary, &settings)?;
        networks.insert(primary, settings);
        Ok(networks)
    }

    fn inherited_mounts(&self, specs: &[String]) -> Result<Vec<MountPlan>> {
        let mut inherited = Vec::new();
        for spec in specs {
            let (name, mode) = mounts::parse_volumes_from(spec)?;
            // Not "not found": the docker CLI would take that for the image, and pull it.
            let donor = self.containers.find(name).map_err(|error| EngineError::invalid(error.message()))?;
            let donor = donor.definition();
            inherited.extend(donor.mounts.iter().filter(|plan| !plan.is_in_memory()).cloned().map(|plan| {
                MountPlan {
                    read_only: plan.read_only || mode == Some("ro"),
                    anonymous: false,
                    no_copy: true,
                    ..plan
                }
            }));
        }
        Ok(inherited)
    }

    /// The effects: row, snapshot, directory, volumes.
    fn make(&self, mut definition: Definition, layers: &[DiffId], reserved: Reserved<'_>) -> Result<String> {
        let id = definition.id.clone();
        let intent = Status { phase: Phase::Creating, ..Status::default() };
        self.db.put_container(&definition, &intent)?;
        let mut made = Vec::new();
        let result = self.make_parts(&mut definition, layers, &mut made).and_then(|()| {
            let container = Container::new(definition, intent);
            container.redefine(&self.db, |_| {})?;
            container.change(&self.db, Change::Made, |_| {})?;
            Ok(Arc::new(container))
        });
        match result {
            Ok(container) => {
                self.containers.add(Arc::clone(&container), reserved);
                // Only now can the list of users tell that its volumes are in use.
                drop(made);
                self.events.publish("container", "create", &id, container.attributes(&[]));
                Ok(id)
            }
            Err(error) => {
                let new: Vec<String> =
                    made.iter().filter(|pin| pin.made).map(|pin| pin.name.clone()).collect();
                drop(made);
                for problem in self.unmake(&id, &new) {
                    tracing::warn!(container = id, error = %problem, "undoing a creation");
                }
                Err(error)
            }
        }
    }

    /// Takes away what a creation made; goes on past errors.
    pub(crate) fn unmake(&self, id: &str, volumes: &[String]) -> Vec<EngineError> {
        let mut errors = Vec::new();
        errors.extend(self.remove_snapshot(id).err());
        let dir = self.container_dir(id);
        errors.extend(remove_tree(&dir).err());
        errors.extend(volumes.iter().filter_map(|name| self.drop_volume(name).err()));
        errors.extend(self.db.delete_container(id).err());
        errors
    }

    fn make_parts(&self, definition: &mut Definition, layers: &[DiffId], made: &mut Vec<Pin>) -> Result<()> {
        let dir = self.container_dir(&definition.id);
        std::fs::create_dir_all(&dir).during("create", &dir)?;
        let snapshot = self.store.snapshots().create(&definition.id, layers)?;
        let size = super::size::asked(definition.host.storage_opt.iter().flatten())?;
        if let Some(bytes) = size.or(self.config.defaults.size) {
            self.bound(&snapshot, bytes)?;
        }
        let marker = snapshot.upper.join(super::changes::MARKER);
        std::fs::File::create_new(&marker).during("create", &marker)?;
        let mut root = None;
        for plan in &mut definition.mounts {
            match plan.kind {
                MountKind::Volume => self.prepare_volume(plan, layers, &mut root, made)?,
                MountKind::Bind => prepare_bind(plan)?,
                MountKind::Image => {
                    // Clients take a "not found" for the container's own image, and pull.
                    let missing = |error| {
                        EngineError::invalid(format!(
                            "invalid mount config for type \"image\": {error}: pull it first"
                        ))
                    };
                    plan.image_id =
                        self.store.images().resolve(&plan.source).map_err(missing)?.id.to_string();
                }
                MountKind::Tmpfs | MountKind::Secret => {}
            }
        }
        Ok(())
    }

    fn prepare_volume(
        &self,
        plan: &mut MountPlan,
        layers: &[DiffId],
        root: &mut Option<OwnedFd>,
        made: &mut Vec<Pin>,
    ) -> Result<()> {
        let anonymous = plan.source.is_empty();
        let labels = if plan.labels.is_empty() { None } else { Some(plan.labels.clone()) };
        let wanted = Wanted {
            name: plan.source.clone(),
            driver: plan.driver.clone(),
            options: Some(plan.driver_options.clone()).filter(|options| !options.is_empty()),
            labels,
        };
        let pin = self.acquire_volume(wanted).map_err(|error| match error.kind() {
            // Clients take a "not found" for a missing image, and pull.
            Kind::NotFound => EngineError::invalid(error.message().to_owned()),
            _ => error,
        })?;
        plan.source.clone_from(&pin.name);
        plan.anonymous |= anonymous;
        made.push(pin);
        if plan.no_copy || !plan.subpath.is_empty() {
            return Ok(());
        }
        if root.is_none() {
            *root = Some(self.store.snapshots().mount_ro(layers)?);
        }
        let Some(root) = root.as_ref() else { return Ok(()) };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        match open_in_root(root.as_fd(), &plan.target, flags, Mode::empty()) {
            Ok(content) => {
                let id = format!("copy-up {}", plan.target);
                let copied = self
                    .volumes
                    .mount_for(&plan.source, &id)
                    .and_then(|volume| volumes::copy_up(content.as_fd(), &volume));
                self.volumes.unmount_for(&id);
                copied
            }
            // The image has nothing there.
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            Err(error) => Err(EngineError::io("open in the image", &plan.target, error)),
        }
    }
}

/// `-v` makes a missing source; `--mount` refuses it.
pub(crate) fn prepare_bind(plan: &MountPlan) -> Result<()> {
    match std::fs::metadata(&plan.source) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && plan.create_source => {
            std::fs::create_dir_all(&plan.source).during("create the source of a bind mount", &plan.source)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(EngineError::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            plan.source
        ))),
        Err(error) => Err(EngineError::io("find the source of a bind mount", &plan.source, error)),
    }
}

/// Removes a directory of the engine's own; that it does not exist is no error.
pub(crate) fn remove_tree(dir: &std::path::Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::io("remove", dir, error))
        }
        _ => Ok(()),
    }
}
