//! Services in the order of their dependencies, and work along it as wide as it allows.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::{Result, model::Project};

/// Which services a service waits for.
pub(crate) type Edges = BTreeMap<String, BTreeSet<String>>;

/// Every service with those it depends on.
pub(crate) fn dependencies(project: &Project) -> Edges {
    let known = |name: &&String| project.services.contains_key(*name);
    let each = project.services.iter();
    each.map(|(name, service)| (name.clone(), service.depends_on.keys().filter(known).cloned().collect()))
        .collect()
}

/// Every service with those that depend on it.
pub(crate) fn dependents(project: &Project) -> Edges {
    let mut edges: Edges = project.services.keys().map(|name| (name.clone(), BTreeSet::new())).collect();
    for (name, on) in dependencies(project) {
        for dependency in on {
            edges.entry(dependency).or_default().insert(name.clone());
        }
    }
    edges
}

/// The services, each after those it depends on. (A cycle was refused when the project was loaded.)
pub(crate) fn sorted(project: &Project) -> Vec<String> {
    let mut open = dependencies(project);
    let mut sorted = Vec::with_capacity(open.len());
    while let Some(ready) = open.iter().find(|(_, on)| on.is_empty()).map(|(name, _)| name.clone()) {
        open.remove(&ready);
        open.values_mut().for_each(|on| {
            on.remove(&ready);
        });
        sorted.push(ready);
    }
    sorted.extend(open.into_keys());
    sorted
}

/// Does `work` for every service as soon as it is done for all it waits for. Ends with the first failure.
pub(crate) async fn walk<'a, F>(mut open: Edges, work: impl Fn(String) -> F + 'a) -> Result<()>
where
    F: Future<Output = Result<()>> + 'a,
{
    let mut running = FuturesUnordered::new();
    loop {
        let ready: Vec<String> =
            open.iter().filter(|(_, on)| on.is_empty()).map(|(name, _)| name.clone()).collect();
        for name in ready {
            open.remove(&name);
            let done = work(name.clone());
            running.push(async move { done.await.map(|()| name) });
        }
        let Some(done) = running.next().await else { return Ok(()) };
        let done = done?;
        open.values_mut().for_each(|on| {
            on.remove(&done);
        });
    }
}
