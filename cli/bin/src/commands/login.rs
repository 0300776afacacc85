//! `berth login` and `berth logout`: docker's own configuration is read and written, so both know the same logins.

use std::io::{IsTerminal, Read, stdin};

use anyhow::{Context, Result, bail};
use berth_api::registry::AuthConfig;
use clap::Args;

use crate::credentials::{self, HUB};
use crate::exit::Exit;
use crate::session::Session;
use crate::streams::terminal::without_echo;

/// Log in to a registry
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Registry, host[:port]; a path limits the login to the repositories below it [default: Docker Hub]
    server: Option<String>,
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password or token; better given by --password-stdin, where no other process sees it
    #[arg(short, long)]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password", requires = "username")]
    password_stdin: bool,
}

/// Log out of a registry
#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// Registry, as at login [default: Docker Hub]
    server: Option<String>,
}

pub(crate) async fn run(session: &Session, args: Login) -> Result<Exit> {
    let key = key(args.server.as_deref());
    let username = match args.username {
        Some(username) => username,
        None => ask("Username: ", false)?,
    };
    let password = match (args.password, args.password_stdin) {
        (Some(password), _) => {
            eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            password
        }
        (None, true) => {
            let mut text = String::new();
            stdin().read_to_string(&mut text).context("cannot read the password from standard input")?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        (None, false) => ask("Password: ", true)?,
    };
    if username.is_empty() || password.is_empty() {
        bail!("username and password are both needed");
    }
    let auth = AuthConfig { username, password, server_address: key.clone(), ..AuthConfig::default() };
    let answer = session.client().await?.auth(&auth).await?;
    let auth = match answer.identity_token.as_str() {
        "" => auth,
        token => AuthConfig { identity_token: token.to_owned(), password: String::new(), ..auth },
    };
    let place = credentials::store(&key, &auth)?;
    println!("{} ({place})", answer.status);
    Ok(Exit::Success)
}

pub(crate) fn logout(args: Logout) -> Result<Exit> {
    let key = key(args.server.as_deref());
    println!("Removing login credentials for {key}");
    if !credentials::erase(&key)? {
        eprintln!("Not logged in to {key}");
    }
    Ok(Exit::Success)
}

/// What the login is called in the configuration.
fn key(server: Option<&str>) -> String {
    let bare = server.unwrap_or_default().trim_start_matches("https://").trim_start_matches("http://");
    match bare.trim_end_matches('/') {
        "" | "docker.io" | "index.docker.io" | "index.docker.io/v1" => HUB.to_owned(),
        bare => bare.to_owned(),
    }
}

fn ask(question: &str, secret: bool) -> Result<String> {
    if !stdin().is_terminal() {
        bail!("cannot ask for it without a terminal: give --username and --password-stdin");
    }
    eprint!("{question}");
    let mut answer = String::new();
    let read = |answer: &mut String| stdin().read_line(answer).context("cannot read from the terminal");
    if secret {
        without_echo(|| read(&mut answer))??;
        eprintln!();
    } else {
        read(&mut answer)?;
    }
    Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_have_one_name_each() {
        assert_eq!(key(None), HUB);
        assert_eq!(key(Some("docker.io")), HUB);
        assert_eq!(key(Some("https://example.org/")), "example.org");
        assert_eq!(key(Some("example.org:5000/team")), "example.org:5000/team");
    }
}
