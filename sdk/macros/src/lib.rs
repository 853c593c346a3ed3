//! The macros of `castling-sdk`, which re-exports and documents them. No crate but the SDK depends on this one.

mod arguments;
mod derive;
mod hooks;
mod plugin;

use proc_macro::TokenStream;

/// Makes a plugin of an `impl` block: see the SDK's documentation.
#[proc_macro_attribute]
pub fn plugin(arguments: TokenStream, item: TokenStream) -> TokenStream {
    plugin::expand(arguments.into(), item.into()).into()
}

/// `serde::Deserialize` for crates that depend on `castling-sdk` only: see the SDK's documentation.
#[proc_macro_derive(Deserialize, attributes(serde))]
pub fn derive_deserialize(item: TokenStream) -> TokenStream {
    derive::deserialize(item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// `serde::Serialize`, likewise.
#[proc_macro_derive(Serialize, attributes(serde))]
pub fn derive_serialize(item: TokenStream) -> TokenStream {
    derive::serialize(item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
