//! Who is called what on which network. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::protocol::{Member, View};

/// All members of all networks.
#[derive(Debug, Default)]
pub(crate) struct Table {
    networks: HashMap<String, Network>,
}

#[derive(Debug, Default)]
struct Network {
    members: BTreeMap<String, Member>,
    /// Lower-case name → containers.
    by_name: HashMap<String, Vec<String>>,
}

impl Table {
    /// Enters a member; one of the same container in the same network is replaced.
    pub(crate) fn join(&mut self, member: Member) {
        self.leave(&member.network, &member.container);
        let network = self.networks.entry(member.network.clone()).or_default();
        for name in names_of(&member) {
            let containers = network.by_name.entry(name).or_default();
            if !containers.contains(&member.container) {
                containers.push(member.container.clone());
            }
        }
        network.members.insert(member.container.clone(), member);
    }

    pub(crate) fn leave(&mut self, network: &str, container: &str) {
        let Some(found) = self.networks.get_mut(network) else { return };
        if let Some(member) = found.members.remove(container) {
            for name in names_of(&member) {
                if let Some(containers) = found.by_name.get_mut(&name) {
                    containers.retain(|one| one != container);
                    if containers.is_empty() {
                        found.by_name.remove(&name);
                    }
                }
            }
        }
        if found.members.is_empty() {
            self.networks.remove(network);
        }
    }

    /// The addresses of a name (lower case, no final dot) as the view sees it; `None` when no network has it.
    ///
    /// Members of the view's own Compose project hide others of the same name: two projects on one network may both
    /// have a `db`. A name on several networks has the addresses of the first of them first.
    pub(crate) fn addresses(&self, view: &View, name: &str) -> Option<Vec<IpAddr>> {
        let name = view.links.get(name).map_or(name, String::as_str);
        let mut found: Vec<&Member> = Vec::new();
        for network in view.networks.iter().filter_map(|id| self.networks.get(id)) {
            let containers = network.by_name.get(name).into_iter().flatten();
            found.extend(containers.filter_map(|container| network.members.get(container)));
        }
        if let Some(project) = &view.project
            && found.iter().any(|member| member.project.as_ref() == Some(project))
        {
            found.retain(|member| member.project.as_ref() == Some(project));
        }
        if found.is_empty() {
            return None;
        }
        Some(found.into_iter().flat_map(|member| member.addresses.iter().copied()).collect())
    }

    /// The name of an address as the view sees it: `name.network`.
    pub(crate) fn name(&self, view: &View, address: IpAddr) -> Option<String> {
        let networks = view.networks.iter().filter_map(|id| self.networks.get(id));
        let member = networks
            .flat_map(|network| network.members.values())
            .find(|member| member.addresses.contains(&address))?;
        let name = member.names.first()?;
        Some(format!("{name}.{}", member.network_name))
    }
}

fn names_of(member: &Member) -> impl Iterator<Item = String> {
    let network = member.network_name.to_ascii_lowercase();
    member.names.iter().flat_map(move |name| {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let qualified = format!("{name}.{network}");
        [name, qualified]
    })
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035 3.5, RFC 3596 2.5).
pub(crate) fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(numbers) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut labels = numbers.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let mut bits = 0_u128;
    let mut count = 0;
    for label in name.strip_suffix(".ip6.arpa")?.split('.') {
        let digit = u128::from_str_radix(label, 16).ok().filter(|_| label.len() == 1 && count < 32)?;
        bits |= digit << (4 * count);
        count += 1;
    }
    (count == 32).then_some(IpAddr::V6(Ipv6Addr::from(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(network: &str, container: &str, names: &[&str], project: Option<&str>, ip: &str) -> Member {
        Member {
            network: network.into(),
            network_name: format!("{network}-net"),
            container: container.into(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            project: project.map(str::to_owned),
            addresses: vec![ip.parse().unwrap()],
        }
    }

    fn view(networks: &[&str], project: Option<&str>) -> View {
        View {
            links: BTreeMap::new(),
            container: "me".into(),
            networks: networks.iter().map(|n| (*n).to_owned()).collect(),
            project: project.map(str::to_owned),
            upstream: vec![],
        }
    }

    #[test]
    fn a_link_is_a_name_of_one_view_only() {
        let mut table = Table::default();
        table.join(member("n", "one", &["db"], None, "10.0.0.2"));
        let mut linked = view(&["n"], None);
        linked.links.insert("base".into(), "db".into());
        assert_eq!(table.addresses(&linked, "base"), Some(vec!["10.0.0.2".parse().unwrap()]));
        assert_eq!(table.addresses(&view(&["n"], None), "base"), None);
    }

    #[test]
    fn a_view_sees_its_own_networks_only() {
        let mut table = Table::default();
        table.join(member("a", "1", &["Web", "alias"], None, "10.0.0.2"));
        table.join(member("b", "2", &["db"], None, "10.0.1.2"));
        let a = view(&["a"], None);
        assert_eq!(table.addresses(&a, "web"), Some(vec!["10.0.0.2".parse().unwrap()]));
        assert_eq!(table.addresses(&a, "alias.a-net"), Some(vec!["10.0.0.2".parse().unwrap()]));
        assert_eq!(table.addresses(&a, "db"), None);
        assert_eq!(table.addresses(&a, "db.b-net"), None);
        assert_eq!(table.name(&a, "10.0.0.2".parse().unwrap()).unwrap(), "Web.a-net");
        assert_eq!(table.name(&a, "10.0.1.2".parse().unwrap()), None);
        let both = view(&["b", "a"], None);
        assert!(table.addresses(&both, "db").is_some() && table.addresses(&both, "web").is_some());
        table.leave("a", "1");
        assert_eq!(table.addresses(&a, "web"), None);
        assert!(!table.networks.contains_key("a"), "an empty network is forgotten");
    }

    #[test]
    fn the_own_project_comes_first() {
        let mut table = Table::default();
        table.join(member("a", "1", &["db"], Some("blue"), "10.0.0.2"));
        table.join(member("a", "2", &["db"], Some("green"), "10.0.0.3"));
        table.join(member("a", "3", &["db"], Some("green"), "10.0.0.4"));
        let of = |project| table.addresses(&view(&["a"], project), "db").unwrap().len();
        assert_eq!((of(Some("blue")), of(Some("green"))), (1, 2));
        assert_eq!((of(Some("red")), of(None)), (3, 3));
    }

    #[test]
    fn joining_again_replaces() {
        let mut table = Table::default();
        table.join(member("a", "1", &["old"], None, "10.0.0.2"));
        table.join(member("a", "1", &["new"], None, "10.0.0.9"));
        let a = view(&["a"], None);
        assert_eq!(table.addresses(&a, "old"), None);
        assert_eq!(table.addresses(&a, "new"), Some(vec!["10.0.0.9".parse().unwrap()]));
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reverse("2.0.17.172.in-addr.arpa"), Some("172.17.0.2".parse().unwrap()));
        let six = format!("{}{}", "1.".to_owned() + &"0.".repeat(29), "d.f.ip6.arpa");
        assert_eq!(reverse(&six), Some("fd00::1".parse().unwrap()), "{six}");
        for bad in ["in-addr.arpa", "1.2.3.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "x.ip6.arpa", "web"] {
            assert_eq!(reverse(bad), None, "{bad}");
        }
        assert_eq!(reverse(&format!("{}.ip6.arpa", "+1".to_owned() + &".0".repeat(31))), None);
    }
}
