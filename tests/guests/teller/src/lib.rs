//! Answers with what TLS knows of the client's connection, a line a fact; for `/ask` by way of a sub-request.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Teller;

#[plugin]
impl Teller {
    fn content(&self, request: &mut Request) -> Result<Verdict> {
        if request.path() == "/ask" {
            let told = http::subrequest(http::Request::get("/"))?;
            return Ok(Response::status(200).body(told.body()).into());
        }
        let Some(tls) = request.tls() else {
            return Ok(Response::status(200).body("plain").into());
        };
        let mut lines = vec![
            format!("version {}", tls.version()),
            format!("cipher {}", tls.cipher()),
            format!("group {:?}", tls.group()),
            format!("server name {:?}", tls.server_name()),
            format!("alpn {:?}", tls.alpn()),
            format!("resumed {}, early {}", tls.is_resumed(), tls.is_early()),
        ];
        if let Some(client) = tls.client_certificate() {
            lines.extend([
                format!("subject {}", client.subject()),
                format!("issuer {}", client.issuer()),
                format!("serial {}", client.serial()),
                format!("fingerprint {}", client.fingerprint()),
                format!("good from {} to {}", client.not_before().as_secs(), client.not_after().as_secs()),
                format!("dns {:?}", client.dns_names()),
                format!("ip {:?}", client.ip_addresses()),
                format!("uri {:?}", client.uris()),
                format!("email {:?}", client.emails()),
                client.pem(),
            ]);
        }
        Ok(Response::status(200).body(lines.join("\n")).into())
    }
}
