//! Signatures of the hooks.

use castling_abi::Hook;
use syn::{GenericArgument, PathArguments, Type};

/// A hook's signature, as the SDK's documentation shows it.
pub(crate) struct Signature {
    pub(crate) hook: Hook,
    /// After `self` and the state.
    pub(crate) params: &'static [Param],
    /// The function of `castling_sdk::__private` that checks and converts what the hook returns.
    pub(crate) returns: &'static str,
    /// For error messages.
    pub(crate) text: &'static str,
}

/// A parameter: its name and its type's last word.
#[derive(Clone, Copy)]
pub(crate) enum Param {
    /// `&mut TYPE`; a plugin that changes nothing may write `&TYPE`.
    Mut(&'static str, &'static str),
    /// `&TYPE`.
    Ref(&'static str, &'static str),
    /// `TYPE`.
    Value(&'static str, &'static str),
    /// `&[u8]`.
    Bytes(&'static str),
}

impl Param {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mut(name, _) | Self::Ref(name, _) | Self::Value(name, _) | Self::Bytes(name) => {
                name
            }
        }
    }

    /// Whether `ty` is written as this parameter is. Aliases are not seen through: rustc checks the types themselves
    /// when the attribute's code calls the hook.
    pub(crate) fn accepts(self, ty: &Type) -> bool {
        match (self, ty) {
            (Self::Mut(_, word), Type::Reference(reference)) => ends_with(&reference.elem, word),
            (Self::Ref(_, word), Type::Reference(reference)) => {
                reference.mutability.is_none() && ends_with(&reference.elem, word)
            }
            (Self::Value(_, word), ty) => ends_with(ty, word),
            (Self::Bytes(_), Type::Reference(reference)) => {
                let is_bytes = |slice: &syn::TypeSlice| ends_with(&slice.elem, "u8");
                reference.mutability.is_none()
                    && matches!(&*reference.elem, Type::Slice(slice) if is_bytes(slice))
            }
            (Self::Mut(..) | Self::Ref(..) | Self::Bytes(_), _) => false,
        }
    }

    /// Text of the type, as it is written.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Mut(name, word) => format!("{name}: &mut {word}"),
            Self::Ref(name, word) => format!("{name}: &{word}"),
            Self::Value(name, word) => format!("{name}: {word}"),
            Self::Bytes(name) => format!("{name}: &[u8]"),
        }
    }
}

/// Every hook, in the order of a request's life.
pub(crate) const SIGNATURES: &[Signature] = &[
    Signature {
        hook: Hook::PostRead,
        params: &[Param::Mut("request", "Request")],
        returns: "verdict",
        text: "fn post_read(&self, request: &mut Request) -> Verdict",
    },
    Signature {
        hook: Hook::Rewrite,
        params: &[Param::Mut("request", "Request")],
        returns: "verdict",
        text: "fn rewrite(&self, request: &mut Request) -> Verdict",
    },
    Signature {
        hook: Hook::Preaccess,
        params: &[Param::Mut("request", "Request")],
        returns: "verdict",
        text: "fn preaccess(&self, request: &mut Request) -> Verdict",
    },
    Signature {
        hook: Hook::Access,
        params: &[Param::Mut("request", "Request")],
        returns: "verdict",
        text: "fn access(&self, request: &mut Request) -> Verdict",
    },
    Signature {
        hook: Hook::Content,
        params: &[Param::Mut("request", "Request")],
        returns: "verdict",
        text: "fn content(&self, request: &mut Request) -> Verdict",
    },
    Signature {
        hook: Hook::RequestBody,
        params: &[
            Param::Ref("request", "Request"),
            Param::Mut("chunk", "Chunk"),
        ],
        returns: "verdict",
        text: "fn request_body(&self, request: &Request, chunk: &mut Chunk) -> Verdict",
    },
    Signature {
        hook: Hook::Balance,
        params: &[
            Param::Ref("request", "Request"),
            Param::Ref("peers", "Peers"),
        ],
        returns: "choice",
        text: "fn balance(&mut self, request: &Request, peers: &Peers) -> Option<usize>",
    },
    Signature {
        hook: Hook::PeerDone,
        params: &[
            Param::Value("peer", "usize"),
            Param::Value("outcome", "PeerOutcome"),
            Param::Value("latency", "Duration"),
        ],
        returns: "unit",
        text: "fn peer_done(&mut self, peer: usize, outcome: PeerOutcome, latency: Duration)",
    },
    Signature {
        hook: Hook::ResponseHeaders,
        params: &[
            Param::Ref("request", "Request"),
            Param::Mut("reply", "Reply"),
        ],
        returns: "verdict",
        text: "fn response_headers(&self, request: &Request, reply: &mut Reply) -> Verdict",
    },
    Signature {
        hook: Hook::ResponseBody,
        params: &[
            Param::Ref("request", "Request"),
            Param::Mut("chunk", "Chunk"),
        ],
        returns: "unit",
        text: "fn response_body(&self, request: &Request, chunk: &mut Chunk)",
    },
    Signature {
        hook: Hook::Log,
        params: &[
            Param::Ref("request", "Request"),
            Param::Ref("outcome", "Outcome"),
        ],
        returns: "unit",
        text: "fn log(&self, request: &Request, outcome: &Outcome)",
    },
    Signature {
        hook: Hook::AfterResponse,
        params: &[
            Param::Ref("request", "Request"),
            Param::Ref("outcome", "Outcome"),
        ],
        returns: "unit",
        text: "fn after_response(&self, request: &Request, outcome: &Outcome)",
    },
    Signature {
        hook: Hook::Variable,
        params: &[Param::Ref("request", "Request"), Param::Ref("name", "str")],
        returns: "value",
        text: "fn variable(&self, request: &Request, name: &str) -> Option<String>",
    },
    Signature {
        hook: Hook::Timer,
        params: &[],
        returns: "unit",
        text: "fn timer(&mut self)",
    },
    Signature {
        hook: Hook::Message,
        params: &[Param::Ref("topic", "str"), Param::Bytes("message")],
        returns: "unit",
        text: "fn message(&mut self, topic: &str, message: &[u8])",
    },
];

/// The name of the function that builds the plugin; not a hook.
pub(crate) const CONFIGURE: &str = "configure";

/// For error messages.
pub(crate) const CONFIGURE_TEXT: &str = "fn configure(config: Config) -> Result<Self>";

/// The hook of this name.
pub(crate) fn find(name: &str) -> Option<&'static Signature> {
    SIGNATURES
        .iter()
        .find(|signature| signature.hook.name() == name)
}

/// The name that someone who wrote `name` may have meant.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    // Further apart than this, a suggestion is noise.
    const MOST_EDITS: usize = 3;
    let names = SIGNATURES.iter().map(|signature| signature.hook.name());
    names
        .chain([CONFIGURE])
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|&(edits, candidate)| edits <= MOST_EDITS && edits < candidate.len())
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

/// Whether the type is a path whose last word is `word`, without arguments other than lifetimes.
fn ends_with(ty: &Type, word: &str) -> bool {
    let Type::Path(path) = ty else { return false };
    let Some(last) = path.path.segments.last() else {
        return false;
    };
    let plain = match &last.arguments {
        PathArguments::None => true,
        PathArguments::AngleBracketed(arguments) => arguments
            .args
            .iter()
            .all(|argument| matches!(argument, GenericArgument::Lifetime(_))),
        PathArguments::Parenthesized(_) => false,
    };
    plain && last.ident == word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_of_the_abi_has_a_signature() {
        for hook in Hook::ALL {
            assert!(find(hook.name()).is_some(), "{}", hook.name());
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_understood() {
        assert_eq!(nearest("acces"), Some("access"));
        assert_eq!(nearest("response_header"), Some("response_headers"));
        assert_eq!(nearest("config"), Some("configure"));
        assert_eq!(nearest("tokens_match"), None);
    }
}
