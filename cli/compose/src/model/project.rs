//! The project: all services, networks, volumes, configs and secrets, and selections of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use globset::GlobBuilder;

use super::{FileObject, Model, Network, Pairs, Service, Services, Strings, Variables, Volume, decode};
use crate::{
    load::{self, Environment, LoadError, Tree},
    yaml::Path,
};

/// A project.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub working_dir: PathBuf,
    /// The files it was loaded from.
    pub files: Vec<PathBuf>,
    /// Enabled services.
    pub services: Services,
    /// Services of profiles that were not asked for, or that were not selected.
    pub disabled: Services,
    /// Networks.
    pub networks: BTreeMap<String, Network>,
    /// Volumes.
    pub volumes: BTreeMap<String, Volume>,
    /// Secrets.
    pub secrets: BTreeMap<String, FileObject>,
    /// Configs.
    pub configs: BTreeMap<String, FileObject>,
    /// Models.
    pub models: BTreeMap<String, Model>,
    /// Variables for interpolation.
    pub environment: Environment,
    /// Profiles that were asked for.
    pub profiles: Vec<String>,
    /// Files of variables that were named, for the containers' labels.
    pub env_files: Vec<PathBuf>,
}

/// Which others come with selected services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependencies {
    /// Those they depend on.
    Include,
    /// None.
    Ignore,
    /// Those that depend on them.
    Dependents,
}

impl Project {
    /// Reads a tree into the model; checks that it fits together if `consistent`.
    ///
    /// # Errors
    /// If a value or a reference is none.
    pub fn from_tree(tree: &Tree, consistent: bool) -> Result<Self, LoadError> {
        fn section<T: for<'de> serde::Deserialize<'de>>(
            tree: &Tree,
            name: &str,
        ) -> Result<BTreeMap<String, T>, LoadError> {
            let path = Path::from(name);
            match tree.root.get(name) {
                Some(node) => decode(node, &path).map_err(|fault| tree.sources.problem(fault).into()),
                None => Ok(BTreeMap::new()),
            }
        }
        let mut project = Self {
            name: tree.name.clone(),
            working_dir: tree.working_dir.clone(),
            files: tree.files.clone(),
            services: section(tree, "services")?,
            disabled: Services::new(),
            networks: section(tree, "networks")?,
            volumes: section(tree, "volumes")?,
            secrets: section(tree, "secrets")?,
            configs: section(tree, "configs")?,
            models: section(tree, "models")?,
            environment: tree.environment.clone(),
            profiles: Vec::new(),
            env_files: Vec::new(),
        };
        project.enable_profiles(tree.profiles.clone());
        if consistent {
            load::consistency(&project, tree)?;
        }
        for service in project.services.values_mut() {
            if let (Some(scale), Some(deploy)) = (service.scale, &mut service.deploy) {
                deploy.replicas = Some(scale);
            }
        }
        Ok(project)
    }

    /// A project of which nothing is known but its name.
    #[must_use]
    pub fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            working_dir: PathBuf::new(),
            files: Vec::new(),
            services: Services::new(),
            disabled: Services::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            models: BTreeMap::new(),
            environment: Environment::new(),
            profiles: Vec::new(),
            env_files: Vec::new(),
        }
    }

    /// Enables the services of these profiles, and only those.
    fn enable_profiles(&mut self, profiles: Vec<String>) {
        let all = std::mem::take(&mut self.services).into_iter().chain(std::mem::take(&mut self.disabled));
        (self.services, self.disabled) = all.partition(|(_, service)| service.has_profile(&profiles));
        self.profiles = profiles;
    }

    /// Enables the profiles of services that are named.
    pub fn enable_services(&mut self, names: &[String]) {
        let mut profiles = self.profiles.clone();
        for name in names {
            if let Some(service) = self.disabled.get(name) {
                profiles.extend(service.profiles.iter().cloned());
            }
        }
        if !names.is_empty() {
            self.enable_profiles(profiles);
        }
    }

    /// A service by name.
    ///
    /// # Errors
    /// [`LoadError::NoSuchService`].
    pub fn service(&self, name: &str) -> Result<&Service, LoadError> {
        self.services.get(name).ok_or_else(|| LoadError::NoSuchService(name.to_owned()))
    }

    /// Keeps the services that match the names, and those that come with them. No name is all.
    ///
    /// # Errors
    /// [`LoadError::NoSuchService`] if a name matches none.
    pub fn select(&mut self, names: &[String], dependencies: Dependencies) -> Result<(), LoadError> {
        if names.is_empty() {
            return Ok(());
        }
        let mut kept = BTreeSet::new();
        let mut open: Vec<(String, bool)> = names.iter().map(|name| (name.clone(), true)).collect();
        while let Some((name, required)) = open.pop() {
            let matching = self.matching(&name);
            if matching.is_empty() && required {
                return Err(LoadError::NoSuchService(name));
            }
            for name in matching {
                if kept.insert(name.clone()) {
                    open.extend(self.companions(&name, dependencies));
                }
            }
        }
        let all = std::mem::take(&mut self.services);
        let (services, dropped): (Services, Services) =
            all.into_iter().partition(|(name, _)| kept.contains(name));
        self.services = services;
        self.disabled.extend(dropped);
        for service in self.services.values_mut() {
            service.depends_on.retain(|name, _| kept.contains(name));
        }
        Ok(())
    }

    fn matching(&self, name: &str) -> Vec<String> {
        if self.services.contains_key(name) {
            return vec![name.to_owned()];
        }
        match GlobBuilder::new(name).literal_separator(true).build() {
            Ok(glob) => {
                let glob = glob.compile_matcher();
                self.services.keys().filter(|name| glob.is_match(name.as_str())).cloned().collect()
            }
            Err(_) => Vec::new(),
        }
    }

    fn companions(&self, name: &str, dependencies: Dependencies) -> Vec<(String, bool)> {
        match dependencies {
            Dependencies::Ignore => Vec::new(),
            Dependencies::Include => {
                let on = self.services.get(name).into_iter().flat_map(|service| &service.depends_on);
                on.map(|(name, config)| (name.clone(), config.required.0)).collect()
            }
            Dependencies::Dependents => {
                self.dependents(name, |_| true).into_iter().map(|name| (name, true)).collect()
            }
        }
    }

    /// Services that depend on one, in a way that counts.
    pub fn dependents(&self, name: &str, counts: impl Fn(&super::Dependency) -> bool) -> Vec<String> {
        let on = |service: &Service| service.depends_on.get(name).is_some_and(&counts);
        self.services.iter().filter(|(_, service)| on(service)).map(|(name, _)| name.clone()).collect()
    }

    /// Drops networks, volumes, configs and secrets that no enabled service uses.
    pub fn drop_unused(&mut self) {
        let services = || self.services.values();
        let networks: BTreeSet<_> = services().flat_map(|service| service.networks.keys().cloned()).collect();
        let mounts = services().flat_map(|service| &service.volumes);
        let volumes: BTreeSet<_> =
            mounts.filter(|mount| mount.r#type == "volume").map(|mount| mount.source.clone()).collect();
        let build_secrets =
            services().filter_map(|service| service.build.as_ref()).flat_map(|build| &build.secrets);
        let secrets: BTreeSet<_> = services()
            .flat_map(|service| &service.secrets)
            .chain(build_secrets)
            .map(|secret| secret.source.clone())
            .collect();
        let configs: BTreeSet<_> =
            services().flat_map(|service| &service.configs).map(|config| config.source.clone()).collect();
        let models: BTreeSet<_> = services().flat_map(|service| service.models.keys().cloned()).collect();
        self.networks.retain(|name, _| networks.contains(name));
        self.volumes.retain(|name, _| volumes.contains(name));
        self.secrets.retain(|name, _| secrets.contains(name));
        self.configs.retain(|name, _| configs.contains(name));
        self.models.retain(|name, _| models.contains(name));
    }

    /// Fills every service's environment from its files and from the project's variables.
    ///
    /// # Errors
    /// If a file that must be there is not, or cannot be understood.
    pub fn resolve_environment(&mut self) -> Result<(), LoadError> {
        for service in self.services.values_mut() {
            let lookup = |name: &str| self.environment.get(name).cloned();
            for (name, value) in service.environment.iter_mut().filter(|(_, value)| value.is_none()) {
                *value = lookup(name);
            }
            let own = service.environment.clone();
            let mut read: BTreeMap<String, String> =
                own.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
            for file in std::mem::take(&mut service.env_file) {
                let path = PathBuf::from(&file.path);
                if !path.exists() && !file.required {
                    continue;
                }
                let outside = |name: &str| lookup(name).or_else(|| own.get(name).cloned().flatten());
                match file.format.as_str() {
                    "" | ".env" => load::read_variables(&path, &mut read, &outside)?,
                    "raw" => load::read_raw_variables(&path, &mut read, &outside)?,
                    _ => return Err(LoadError::EnvFileFormat { path, format: file.format }),
                }
            }
            let read = read.into_iter().map(|(name, value)| (name, Some(value)));
            service.environment = Variables(read.chain(own.0).collect());
        }
        Ok(())
    }

    /// Adds the labels of every service's files to its labels; with `discard` the files are forgotten.
    ///
    /// # Errors
    /// If a file is not there or cannot be understood.
    pub fn resolve_labels(&mut self, discard: bool) -> Result<(), LoadError> {
        for service in self.services.values_mut() {
            let mut labels = BTreeMap::new();
            for file in &service.label_file {
                let known = labels.clone();
                load::read_variables(file.as_ref(), &mut labels, &|name| known.get(name).cloned())?;
            }
            labels.extend(std::mem::take(&mut service.labels.0));
            service.labels = Pairs(labels);
            if discard {
                service.label_file.clear();
            }
        }
        Ok(())
    }

    /// Settles the platform of services that are built, as far as `DOCKER_DEFAULT_PLATFORM` says one.
    ///
    /// # Errors
    /// [`LoadError::Platform`] if a service cannot be built for its platform.
    pub fn apply_platforms(&mut self, single: bool) -> Result<(), LoadError> {
        let default = self.environment.get("DOCKER_DEFAULT_PLATFORM").cloned().unwrap_or_default();
        for (name, service) in &mut self.services {
            let Some(build) = &mut service.build else { continue };
            if service.platform.is_empty() {
                service.platform.clone_from(&default);
            }
            let platforms = &mut build.platforms.0;
            if !service.platform.is_empty() {
                if !platforms.is_empty() && !platforms.contains(&service.platform) {
                    return Err(LoadError::Platform {
                        service: name.clone(),
                        platform: service.platform.clone(),
                    });
                }
                if single || platforms.is_empty() {
                    build.platforms = Strings(vec![service.platform.clone()]);
                }
            }
            if single && build.platforms.0.len() > 1 {
                build.platforms = Strings::default();
            }
        }
        Ok(())
    }

    /// Two services with the same `container_name`, if there are such.
    #[must_use]
    pub fn shared_container_name(&self) -> Option<(&str, &str, &str)> {
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, service) in &self.services {
            if service.container_name.is_empty() {
                continue;
            }
            if let Some(first) = taken.insert(&service.container_name, name) {
                return Some((&service.container_name, first, name));
            }
        }
        None
    }
}
