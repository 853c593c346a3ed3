//! The helper's conversation with an authority, by the client library.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, ExternalAccountKey, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use instant_acme::{CertificateIdentifier, Error};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls_pki_types::Der as PkiDer;
use x509_parser::extensions::ParsedExtension;
use x509_parser::parse_x509_certificate;

use super::http::{AuthorityClient, Told};
use super::{
    AccountWork, Challenge, Credentials, Failure, FromHelper, OrderWork, RenewalInfo, Task, Window,
    Work,
};
use crate::config::{AcmeKeyType, Certificate, ChallengeKind, KeyForm, PrivateKey};

/// Does a task to its end, and returns the last message. `tell` passes a message on, and returns when the master has done what it
/// asks for; its error is that the master is gone.
pub async fn work(
    task: Task,
    tell: &mut impl AsyncFnMut(FromHelper) -> std::io::Result<()>,
) -> FromHelper {
    let client = match AuthorityClient::new(&task.roots, &task.directory) {
        Ok(client) => client,
        Err(error) => {
            return FromHelper::Failed(Failure {
                error,
                retry_after: None,
            });
        }
    };
    let told = client.told();
    let done = match &task.work {
        Work::Order(work) => order(&task, work, client, tell).await,
        Work::RenewalInfo { certificate } => renewal_info(&task, client, &certificate.0).await,
    };
    done.unwrap_or_else(|error| FromHelper::Failed(failure(&error, &told)))
}

/// Time for the authority to look at the answers, and then to make the certificate. Other orders wait meanwhile.
const POLLING: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(60));

async fn order(
    task: &Task,
    work: &OrderWork,
    client: AuthorityClient,
    tell: &mut impl AsyncFnMut(FromHelper) -> std::io::Result<()>,
) -> Result<FromHelper, Error> {
    let http = || Box::new(client.clone());
    let mut account = match &work.account.credentials {
        Some(Credentials(known)) => {
            let known = serde_json::from_value(known.clone())?;
            Account::builder_with_http(http())
                .from_credentials(known)
                .await?
        }
        None => new_account(task, &work.account, http(), tell).await?,
    };
    let made = new_order(&account, work).await;
    let mut order = match made {
        // RFC 8555 §7.3.3: the account is the authority's no more, as after its database was lost.
        Err(Error::Api(problem)) if is_of_type(&problem, "accountDoesNotExist") => {
            account = new_account(task, &work.account, http(), tell).await?;
            new_order(&account, work).await?
        }
        made => made?,
    };
    let told = client.told();
    match fulfil(&mut order, work, tell).await {
        Ok(issued) => Ok(issued),
        Err(error) => {
            // Said before the authority says more.
            let failure = failure(&error, &told);
            give_up(&mut order).await;
            Ok(FromHelper::Failed(failure))
        }
    }
}

/// Makes an account, and has it kept before it is used.
async fn new_account(
    task: &Task,
    work: &AccountWork,
    http: Box<AuthorityClient>,
    tell: &mut impl AsyncFnMut(FromHelper) -> std::io::Result<()>,
) -> Result<Account, Error> {
    let contact: Vec<_> = work.contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        // The config has to say so.
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let external = work.external.as_ref();
    let external = external.map(|it| ExternalAccountKey::new(it.kid.clone(), &it.hmac_key));
    let (account, credentials) = Account::builder_with_http(http)
        .create(&new, task.directory.clone(), external.as_ref())
        .await?;
    let credentials = Credentials(serde_json::to_value(&credentials)?);
    tell(FromHelper::Account(credentials))
        .await
        .map_err(other)?;
    Ok(account)
}

async fn new_order(account: &Account, work: &OrderWork) -> Result<Order, Error> {
    let identifiers: Vec<_> = work.names.iter().cloned().map(Identifier::Dns).collect();
    let plain = || {
        let order = NewOrder::new(&identifiers);
        match &work.profile {
            Some(profile) => order.profile(profile),
            None => order,
        }
    };
    if let Some(replaces) = &work.replaces
        && let Some(replaced) = identifier(&replaces.0)
    {
        match account.new_order(&plain().replaces(replaced)).await {
            Ok(order) => return Ok(order),
            // RFC 9773 §5: the order is as good without it.
            Err(Error::Unsupported(_)) => {}
            Err(Error::Other(error)) if error.to_string().starts_with(NOT_REFLECTED) => {}
            Err(Error::Api(problem)) if is_about_replacing(&problem) => {}
            Err(error) => return Err(error),
        }
    }
    account.new_order(&plain()).await
}

/// Shows that the names are ours, and has the certificate made.
async fn fulfil(
    order: &mut Order,
    work: &OrderWork,
    tell: &mut impl AsyncFnMut(FromHelper) -> std::io::Result<()>,
) -> Result<FromHelper, Error> {
    let chosen = challenges(order, work).await?;
    if !chosen.is_empty() {
        let answers = chosen.iter().map(|(_, answer)| answer.clone());
        tell(FromHelper::Challenges(answers.collect()))
            .await
            .map_err(other)?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let kind = chosen
                .iter()
                .find(|(url, _)| url == authorization.url())
                .map(|(_, answer)| answer.kind());
            if let Some(kind) = kind
                && let Some(mut challenge) = authorization.challenge(kind)
            {
                challenge.set_ready().await?;
            }
        }
        if order.poll_ready(&POLLING).await? == OrderStatus::Invalid {
            return Err(why_invalid(order).await);
        }
    }
    let key = new_key(work.key_type).map_err(other)?;
    let mut params = CertificateParams::new(work.names.clone()).map_err(other)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(other)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&POLLING).await?;
    Ok(FromHelper::Issued {
        chain,
        key: key.serialize_pem(),
    })
}

/// A challenge for each name that is not shown to be ours yet, with its answer, by the URL of its authorization.
async fn challenges(
    order: &mut Order,
    work: &OrderWork,
) -> Result<Vec<(String, Challenge)>, Error> {
    let mut chosen = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let url = authorization.url().to_owned();
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            _ => return Err(Error::Str("an authorization that can be used")),
        }
        let offered = |kind: &&ChallengeKind| {
            let wanted = library_kind(**kind);
            authorization
                .challenges
                .iter()
                .any(|it| it.r#type == wanted)
        };
        let Some(kind) = work.challenges.iter().find(offered).copied() else {
            return Err(Error::Str("a challenge that the config allows"));
        };
        let name = authorization.identifier().to_string();
        let Some(challenge) = authorization.challenge(library_kind(kind)) else {
            return Err(Error::Str("the challenge that was offered"));
        };
        let answer = challenge.key_authorization();
        let answer = match kind {
            ChallengeKind::Http01 => Challenge::Http01 {
                token: challenge.token.clone(),
                answer: answer.as_str().to_owned(),
            },
            ChallengeKind::TlsAlpn01 => {
                let digest = answer.digest();
                Challenge::TlsAlpn01(shown(&name, digest.as_ref()).map_err(other)?)
            }
        };
        chosen.push((url, answer));
    }
    Ok(chosen)
}

/// The certificate that answers tls-alpn-01 (RFC 8737 §3).
fn shown(name: &str, digest: &[u8]) -> Result<Certificate, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    Ok(Certificate {
        chain: vec![certificate.der().to_vec()],
        key: PrivateKey {
            form: KeyForm::Pkcs8,
            der: key.serialize_der(),
        },
        names: vec![name.to_ascii_lowercase()],
        key_place: "tls-alpn-01".to_owned(),
    })
}

fn new_key(kind: AcmeKeyType) -> Result<KeyPair, rcgen::Error> {
    match kind {
        AcmeKeyType::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        AcmeKeyType::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        AcmeKeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
    }
}

/// Reason of the first challenge that has failed.
async fn why_invalid(order: &mut Order) -> Error {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            break;
        }
        let failed = authorization
            .challenges
            .iter()
            .find_map(|it| it.error.clone());
        if let Some(problem) = failed {
            let name = authorization.identifier().to_string();
            return other(format!("{name}: {problem}"));
        }
    }
    Error::Str("the reason why the order is invalid")
}

/// Lets go of what is not shown yet: authorities count what is left pending, and refuse further orders (caddy#523).
async fn give_up(order: &mut Order) {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let refreshed = authorization.refresh().await;
        let is_pending = refreshed.is_ok_and(|it| it.status == AuthorizationStatus::Pending);
        if is_pending {
            // The order has failed already.
            let _ = authorization.deactivate().await;
        }
    }
}

async fn renewal_info(
    task: &Task,
    client: AuthorityClient,
    certificate: &[u8],
) -> Result<FromHelper, Error> {
    let Some(identifier) = identifier(certificate) else {
        return Ok(FromHelper::RenewalInfo(None));
    };
    // The question needs no account (RFC 9773 §4.1), but the library one: it is made here, and the authority not told of it.
    let (_, key) = instant_acme::Key::generate_pkcs8()?;
    let account = Account::builder_with_http(Box::new(client))
        .from_parts(String::new(), key, task.directory.clone())
        .await?;
    match account.renewal_info(&identifier).await {
        Ok((info, ask_again)) => Ok(FromHelper::RenewalInfo(Some(RenewalInfo {
            window: Window {
                start: info.suggested_window.start.unix_timestamp(),
                end: info.suggested_window.end.unix_timestamp(),
            },
            ask_again: ask_again.as_secs(),
        }))),
        Err(Error::Unsupported(_)) => Ok(FromHelper::RenewalInfo(None)),
        Err(error) => Err(error),
    }
}

/// Identifier of a certificate (RFC 9773 §4.1); `None`: it names no key of its issuer.
fn identifier(der: &[u8]) -> Option<CertificateIdentifier<'static>> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let of_issuer = |extension: &ParsedExtension<'_>| match extension {
        ParsedExtension::AuthorityKeyIdentifier(it) => Some(it.key_identifier.as_ref()?.0.to_vec()),
        _ => None,
    };
    let mut extensions = certificate.iter_extensions();
    let key = extensions.find_map(|extension| of_issuer(extension.parsed_extension()))?;
    let serial = certificate.tbs_certificate.raw_serial();
    let identifier =
        CertificateIdentifier::new(PkiDer::from_slice(&key), PkiDer::from_slice(serial));
    Some(identifier.into_owned())
}

fn is_of_type(problem: &instant_acme::Problem, kind: &str) -> bool {
    let full = problem.r#type.as_deref();
    full.and_then(|full| full.strip_prefix("urn:ietf:params:acme:error:")) == Some(kind)
}

fn is_about_replacing(problem: &instant_acme::Problem) -> bool {
    is_of_type(problem, "alreadyReplaced") || is_of_type(problem, "malformed")
}

fn library_kind(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

impl Challenge {
    fn kind(&self) -> ChallengeType {
        match self {
            Self::Http01 { .. } => ChallengeType::Http01,
            Self::TlsAlpn01(_) => ChallengeType::TlsAlpn01,
        }
    }
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Other(error.into())
}

fn failure(error: &Error, told: &Told) -> Failure {
    let text = match error {
        Error::Json(_) => format!("{}: {error}", told.exchange()),
        _ => error.to_string(),
    };
    Failure {
        error: printable(&text),
        retry_after: told.retry_after(),
    }
}

/// Text as one line of bounded length: an authority's words may be anything.
pub fn printable(text: &str) -> String {
    let plain = text.chars().map(|char| match char.is_control() {
        true => ' ',
        false => char,
    });
    plain.take(MAX_ERROR_CHARS).collect()
}

/// Begin of what the library says of an authority that has taken an order and not said what it replaces.
const NOT_REFLECTED: &str = "replaces field mismatch";

const MAX_ERROR_CHARS: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authoritys_words_are_one_line() {
        assert_eq!(printable("a\r\nb\u{1b}[2J"), "a  b [2J");
        assert_eq!(printable(&"x".repeat(9000)).len(), MAX_ERROR_CHARS);
    }

    #[test]
    fn a_certificate_without_its_issuers_key_has_no_identifier() {
        let shown = shown("a.test", &[7; 32]).unwrap();
        assert!(identifier(&shown.chain[0]).is_none());
        assert!(identifier(b"nonsense").is_none());
    }

    #[test]
    fn the_answer_over_tls_is_for_the_name_and_has_the_digest() {
        let shown = shown("A.test", &[7; 32]).unwrap();
        assert_eq!(shown.names, ["a.test"]);
        let (_, certificate) = parse_x509_certificate(&shown.chain[0]).unwrap();
        let extension = certificate
            .iter_extensions()
            .find(|it| it.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
            .unwrap();
        assert!(extension.critical);
        assert!(extension.value.ends_with(&[7; 32]));
    }
}
