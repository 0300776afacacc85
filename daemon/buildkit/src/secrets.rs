//! Secrets, asked of the client.

use berth_builder::Secret;
use tonic::{Code, Status};

use crate::protocol::secrets::GetSecretRequest;
use crate::protocol::secrets::secrets_client::SecretsClient;
use crate::session::Session;

/// BuildKit's limit for a secret.
const MAX_SECRET: usize = 500 << 10;

/// The client's secret of this id; none if it has no such.
pub(crate) async fn get(session: &Session, id: &str) -> Result<Option<Secret>, Status> {
    if !session.offers("/moby.buildkit.secrets.v1.Secrets/GetSecret") {
        return Ok(None);
    }
    let mut client = SecretsClient::with_origin(session.channel.clone(), Session::origin());
    match client.get_secret(GetSecretRequest { id: id.to_owned() }).await {
        Ok(answer) => {
            let data = answer.into_inner().data;
            if data.len() > MAX_SECRET {
                return Err(Status::invalid_argument(format!(
                    "secret {id} is larger than {MAX_SECRET} bytes"
                )));
            }
            Ok(Some(Secret(data.to_vec())))
        }
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) => Err(Status::new(error.code(), format!("secret {id}: {}", error.message()))),
    }
}
