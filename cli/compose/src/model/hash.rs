//! Hashes of configurations, byte for byte those of docker compose: SHA-256 over Go's JSON of its own model.

use sha2::{Digest, Sha256};

use super::{Network, Service, Volume};

impl Service {
    /// What `com.docker.compose.config-hash` says of a container: it is made anew when this changes.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut service = self.clone();
        service.build = None;
        service.pull_policy.clear();
        service.scale = None;
        if let Some(deploy) = &mut service.deploy {
            deploy.replicas = None;
        }
        service.depends_on.clear();
        service.profiles.clear();
        // docker compose forgets the mode once it knows the container.
        for from in &mut service.volumes_from {
            if let Some((id, _)) = from.split_once(':').filter(|(id, _)| is_id(id)) {
                *from = id.to_owned();
            }
        }
        sha256(&go_json(&service))
    }
}

impl Network {
    /// What `com.docker.compose.config-hash` says of a network.
    #[must_use]
    pub fn hash(&self) -> String {
        sha256(&go_json(self))
    }
}

impl Volume {
    /// What `com.docker.compose.config-hash` says of a volume.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut volume = self.clone();
        if volume.driver.is_empty() {
            "local".clone_into(&mut volume.driver);
        }
        sha256(&go_json(&volume))
    }
}

/// The id of a container, which no service is called.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// JSON as Go writes it: what could end a script element is escaped.
pub(crate) fn go_json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).expect("the model has text keys and serialises");
    escape(&text)
}

/// These characters only ever stand within strings.
pub(crate) fn escape(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => out.push(char),
        }
    }
    out
}
