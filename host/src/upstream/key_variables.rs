//! Variables in the keys of an upstream, as far as plugins may compute them: they have to be there when a peer is chosen.

use crate::config::{self, Balance, Sticky, TemplatePart, template_parts};
use crate::exchange::Variable;

/// Names in the key of its hash and in the texts of its sessions that are none of the gateway's own. Mostly there are none.
pub(super) fn of(upstream: &config::Upstream) -> Box<[Box<str>]> {
    let mut hash = None;
    if let Balance::Hash(balance) = &upstream.balance {
        hash = Some(&balance.key);
    }
    let sticky = match &upstream.sticky {
        Some(Sticky::Route(texts)) => texts.as_slice(),
        Some(Sticky::Learn(learnt)) => &learnt.lookup,
        Some(Sticky::Cookie(_)) | None => &[],
    };
    let mut names = Vec::new();
    for text in hash.into_iter().chain(sticky) {
        // A text that cannot be read was refused before.
        for part in template_parts(text).unwrap_or_default() {
            if let TemplatePart::Variable(name) = part
                && let Some(Variable::Set(name)) = Variable::parse(name)
            {
                names.push(Box::from(name));
            }
        }
    }
    names.into()
}
