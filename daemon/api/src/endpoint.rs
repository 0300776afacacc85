//! The table of endpoints: method, path, the version that brought it.
//!
//! A path pattern's `{name}` takes one segment, `{name:.*}` takes one or more, slashes included (image names).
//! The table is ordered: the first row that fits wins, so `/images/get` stands before `/images/{name:.*}/get`.

use crate::ApiVersion;

/// HTTP methods the API uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say all")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path without version.
    pub pattern: &'static str,
    /// What it asks for.
    pub endpoint: Endpoint,
    /// The version that brought it.
    pub since: ApiVersion,
}

macro_rules! endpoints {
    ($($method:ident $pattern:literal $endpoint:ident $minor:literal;)*) => {
        endpoints!(@enum [] $($endpoint)*);

        /// All endpoints, in the order of their trial.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            pattern: $pattern,
            endpoint: Endpoint::$endpoint,
            since: ApiVersion::new(1, $minor),
        },)*];
    };
    // Several rows may name one endpoint in a row (GET and HEAD of ping, both of docker's spellings): keep the first.
    (@enum [$($done:ident)*] Ping Ping $($rest:ident)*) => { endpoints!(@enum [$($done)*] Ping $($rest)*); };
    (@enum [$($done:ident)*] NetworkList NetworkList $($rest:ident)*) => { endpoints!(@enum [$($done)*] NetworkList $($rest)*); };
    (@enum [$($done:ident)*] PluginAdd PluginAdd $($rest:ident)*) => { endpoints!(@enum [$($done)*] PluginAdd $($rest)*); };
    (@enum [$($done:ident)*] Plugin Plugin $($rest:ident)*) => { endpoints!(@enum [$($done)*] Plugin $($rest)*); };
    (@enum [$($done:ident)*] Swarm Swarm $($rest:ident)*) => { endpoints!(@enum [$($done)*] Swarm $($rest)*); };
    (@enum [$($done:ident)*] $next:ident $($rest:ident)*) => { endpoints!(@enum [$($done)* $next] $($rest)*); };
    (@enum [$($done:ident)*]) => {
        /// What a request asks for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the table above documents each")]
        pub enum Endpoint { $($done,)* }
    };
}

endpoints! {
    Get    "/_ping"                              Ping                24;
    Head   "/_ping"                              Ping                24;
    Post   "/auth"                               Auth                24;
    Get    "/info"                               Info                24;
    Get    "/version"                            Version             24;
    Get    "/events"                             Events              24;
    Get    "/system/df"                          DiskUsage           25;

    Get    "/containers/json"                    ContainerList       24;
    Post   "/containers/create"                  ContainerCreate     24;
    Post   "/containers/prune"                   ContainerPrune      25;
    Get    "/containers/{id}/json"               ContainerInspect    24;
    Get    "/containers/{id}/top"                ContainerTop        24;
    Get    "/containers/{id}/logs"               ContainerLogs       24;
    Get    "/containers/{id}/changes"            ContainerChanges    24;
    Get    "/containers/{id}/export"             ContainerExport     24;
    Get    "/containers/{id}/stats"              ContainerStats      24;
    Post   "/containers/{id}/resize"             ContainerResize     24;
    Post   "/containers/{id}/start"              ContainerStart      24;
    Post   "/containers/{id}/stop"               ContainerStop       24;
    Post   "/containers/{id}/restart"            ContainerRestart    24;
    Post   "/containers/{id}/kill"               ContainerKill       24;
    Post   "/containers/{id}/update"             ContainerUpdate     24;
    Post   "/containers/{id}/rename"             ContainerRename     24;
    Post   "/containers/{id}/pause"              ContainerPause      24;
    Post   "/containers/{id}/unpause"            ContainerUnpause    24;
    Post   "/containers/{id}/attach"             ContainerAttach     24;
    Get    "/containers/{id}/attach/ws"          ContainerAttachWs   24;
    Post   "/containers/{id}/wait"               ContainerWait       24;
    Post   "/containers/{id}/exec"               ExecCreate          24;
    Head   "/containers/{id}/archive"            ArchiveStat         24;
    Get    "/containers/{id}/archive"            ArchiveGet          24;
    Put    "/containers/{id}/archive"            ArchivePut          24;
    Delete "/containers/{id:.*}"                 ContainerRemove     24;

    Post   "/exec/{id}/start"                    ExecStart           24;
    Post   "/exec/{id}/resize"                   ExecResize          24;
    Get    "/exec/{id}/json"                     ExecInspect         24;

    Get    "/images/json"                        ImageList           24;
    Post   "/images/create"                      ImageCreate         24;
    Get    "/images/search"                      ImageSearch         24;
    Post   "/images/prune"                       ImagePrune          25;
    Get    "/images/get"                         ImageSave           24;
    Post   "/images/load"                        ImageLoad           24;
    Get    "/images/{name:.*}/json"              ImageInspect        24;
    Get    "/images/{name:.*}/history"           ImageHistory        24;
    Get    "/images/{name:.*}/attestations"      ImageAttestations   55;
    Post   "/images/{name:.*}/push"              ImagePush           24;
    Post   "/images/{name:.*}/tag"               ImageTag            24;
    Get    "/images/{name:.*}/get"               ImageSaveOne        24;
    Delete "/images/{name:.*}"                   ImageRemove         24;
    Get    "/distribution/{name:.*}/json"        Distribution        30;

    Post   "/commit"                             Commit              24;
    Post   "/build"                              Build               24;
    Post   "/build/prune"                        BuildPrune          31;
    Post   "/build/cancel"                       BuildCancel         39;

    Get    "/networks"                           NetworkList         24;
    Get    "/networks/"                          NetworkList         24;
    Post   "/networks/create"                    NetworkCreate       24;
    Post   "/networks/prune"                     NetworkPrune        25;
    Get    "/networks/{id:.*}"                   NetworkInspect      24;
    Post   "/networks/{id:.*}/connect"           NetworkConnect      24;
    Post   "/networks/{id:.*}/disconnect"        NetworkDisconnect   24;
    Delete "/networks/{id:.*}"                   NetworkRemove       24;

    Get    "/volumes"                            VolumeList          24;
    Post   "/volumes/create"                     VolumeCreate        24;
    Post   "/volumes/prune"                      VolumePrune         25;
    Get    "/volumes/{name:.*}"                  VolumeInspect       24;
    Put    "/volumes/{name:.*}"                  VolumeUpdate        42;
    Delete "/volumes/{name:.*}"                  VolumeRemove        24;

    Get    "/plugins"                            PluginList          25;

    Get    "/plugins/privileges"                 PluginAdd           25;
    Post   "/plugins/pull"                       PluginAdd           25;
    Post   "/plugins/create"                     PluginAdd           25;
    Get    "/plugins/{name:.*}/json"             Plugin              25;
    Post   "/plugins/{name:.*}/enable"           Plugin              25;
    Post   "/plugins/{name:.*}/disable"          Plugin              25;
    Post   "/plugins/{name:.*}/upgrade"          Plugin              25;
    Post   "/plugins/{name:.*}/push"             Plugin              25;
    Post   "/plugins/{name:.*}/set"              Plugin              25;
    Delete "/plugins/{name:.*}"                  Plugin              25;

    Post   "/swarm/leave"                        SwarmLeave          24;
    Get    "/swarm"                              Swarm               24;
    Post   "/swarm/init"                         Swarm               24;
    Post   "/swarm/join"                         Swarm               24;
    Post   "/swarm/update"                       Swarm               24;
    Get    "/swarm/unlockkey"                    Swarm               24;
    Post   "/swarm/unlock"                       Swarm               24;
    Get    "/nodes"                              Swarm               24;
    Get    "/nodes/{id}"                         Swarm               24;
    Delete "/nodes/{id}"                         Swarm               24;
    Post   "/nodes/{id}/update"                  Swarm               24;
    Get    "/services"                           Swarm               24;
    Post   "/services/create"                    Swarm               24;
    Get    "/services/{id}"                      Swarm               24;
    Delete "/services/{id}"                      Swarm               24;
    Post   "/services/{id}/update"               Swarm               24;
    Get    "/services/{id}/logs"                 Swarm               29;
    Get    "/tasks"                              Swarm               24;
    Get    "/tasks/{id}"                         Swarm               24;
    Get    "/tasks/{id}/logs"                    Swarm               29;
    Get    "/secrets"                            Swarm               25;
    Post   "/secrets/create"                     Swarm               25;
    Get    "/secrets/{id}"                       Swarm               25;
    Delete "/secrets/{id}"                       Swarm               25;
    Post   "/secrets/{id}/update"                Swarm               25;
    Get    "/configs"                            Swarm               30;
    Post   "/configs/create"                     Swarm               30;
    Get    "/configs/{id}"                       Swarm               30;
    Delete "/configs/{id}"                       Swarm               30;
    Post   "/configs/{id}/update"                Swarm               30;

    Post   "/grpc"                               BuildKit            39;
    Post   "/session"                            BuildSession        31;
    Post   "/berth/build"                        BerthBuild          24;
    Get    "/berth/builds"                       BerthBuilds         24;
    Get    "/berth/builds/{id}/log"              BerthBuildLog       24;
    Post   "/berth/shutdown"                     BerthShutdown       24;
    Post   "/berth/check"                        BerthCheck          24;
}

impl Route {
    /// The pattern's variables in this path, in order; `None` if it does not fit. Segments stay percent-encoded.
    #[must_use]
    pub fn matches<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        let mut variables = Vec::new();
        fit(self.pattern, path, &mut variables).then_some(variables)
    }
}

/// Fits the pattern to the path from the left; `{name:.*}` takes as much as the rest of the pattern leaves it.
fn fit<'p>(pattern: &str, path: &'p str, variables: &mut Vec<&'p str>) -> bool {
    let Some(open) = pattern.find('{') else { return pattern == path };
    let (literal, rest) = pattern.split_at(open);
    let Some(path) = path.strip_prefix(literal) else { return false };
    let Some(close) = rest.find('}') else { return false };
    let (variable, tail) = (&rest[1..close], &rest[close + 1..]);
    let end = if variable.ends_with(":.*") {
        // Only a literal can follow (a test holds the table to that).
        path.len().checked_sub(tail.len()).filter(|end| path.is_char_boundary(*end))
    } else {
        Some(path.find('/').unwrap_or(path.len()))
    };
    let Some((value, path)) = end.and_then(|end| path.split_at_checked(end)) else { return false };
    if value.is_empty() {
        return false;
    }
    variables.push(value);
    fit(tail, path, variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: Method, path: &str) -> Option<(Endpoint, Vec<&str>)> {
        ROUTES
            .iter()
            .filter(|route| route.method == method)
            .find_map(|route| Some((route.endpoint, route.matches(path)?)))
    }

    #[test]
    fn image_names_keep_their_slashes() {
        assert_eq!(
            find(Method::Get, "/images/localhost:5000/a/b:1/json"),
            Some((Endpoint::ImageInspect, vec!["localhost:5000/a/b:1"]))
        );
        assert_eq!(find(Method::Get, "/images/json"), Some((Endpoint::ImageList, vec![])));
        assert_eq!(find(Method::Get, "/images/json/json"), Some((Endpoint::ImageInspect, vec!["json"])));
        assert_eq!(find(Method::Get, "/images/get"), Some((Endpoint::ImageSave, vec![])));
        assert_eq!(find(Method::Delete, "/images/a/b"), Some((Endpoint::ImageRemove, vec!["a/b"])));
        assert_eq!(find(Method::Get, "/images//json"), None);
    }

    #[test]
    fn one_segment_is_one_segment() {
        assert_eq!(find(Method::Get, "/containers/x/json"), Some((Endpoint::ContainerInspect, vec!["x"])));
        assert_eq!(find(Method::Get, "/containers/x/y/json"), None);
        assert_eq!(find(Method::Get, "/containers/json/"), None);
        assert_eq!(find(Method::Get, "/networks/"), Some((Endpoint::NetworkList, vec![])));
        assert_eq!(find(Method::Post, "/_ping"), None);
        assert_eq!(find(Method::Head, "/_ping"), Some((Endpoint::Ping, vec![])));
    }

    #[test]
    fn only_literals_follow_a_greedy_variable() {
        for route in ROUTES {
            if let Some((_, tail)) = route.pattern.split_once(":.*}") {
                assert!(!tail.contains('{'), "{}", route.pattern);
            }
            assert!(route.since >= ApiVersion::MIN && route.since <= ApiVersion::MAX, "{}", route.pattern);
        }
    }

    #[test]
    fn no_row_hides_behind_another() {
        for (index, route) in ROUTES.iter().enumerate() {
            let path =
                route.pattern.replace("{name:.*}", "n/m").replace("{id:.*}", "n/m").replace("{id}", "x");
            let first = ROUTES.iter().position(|r| r.method == route.method && r.matches(&path).is_some());
            assert_eq!(first, Some(index), "{}", route.pattern);
        }
    }
}
