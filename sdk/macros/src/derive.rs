//! Derives of serde's traits: serde's own derive writes `extern crate serde`, which a crate that depends on the SDK alone cannot resolve, and a
//! derive cannot add the `#[serde(crate = "...")]` that would help to its item. So this one adds it to a copy of the
//! item and has serde derive for the original through it (`#[serde(remote = "...")]`).

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Error, Fields, Result, Visibility};

/// `serde::Deserialize`.
pub(crate) fn deserialize(item: TokenStream) -> Result<TokenStream> {
    let (name, copy) = copy(item, "Deserialize")?;
    let remote = name.to_string();
    Ok(quote! {
        const _: () = {
            #[derive(::castling_sdk::serde::Deserialize)]
            #[serde(crate = "::castling_sdk::serde", remote = #remote)]
            #[allow(dead_code, clippy::all, reason = "a pattern for serde; nobody builds it")]
            #copy

            // `#[serde(default)]` asks this of the copy, though it takes the original's.
            impl ::core::default::Default for __Copy {
                fn default() -> Self {
                    ::core::unreachable!()
                }
            }

            impl<'de> ::castling_sdk::serde::Deserialize<'de> for #name {
                fn deserialize<D: ::castling_sdk::serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<Self, D::Error> {
                    __Copy::deserialize(deserializer)
                }
            }
        };
    })
}

/// `serde::Serialize`.
pub(crate) fn serialize(item: TokenStream) -> Result<TokenStream> {
    let (name, copy) = copy(item, "Serialize")?;
    let remote = name.to_string();
    Ok(quote! {
        const _: () = {
            #[derive(::castling_sdk::serde::Serialize)]
            #[serde(crate = "::castling_sdk::serde", remote = #remote)]
            #[allow(dead_code, clippy::all, reason = "a pattern for serde; nobody builds it")]
            #copy

            impl ::castling_sdk::serde::Serialize for #name {
                fn serialize<S: ::castling_sdk::serde::Serializer>(
                    &self,
                    serializer: S,
                ) -> ::core::result::Result<S::Ok, S::Error> {
                    __Copy::serialize(self, serializer)
                }
            }
        };
    })
}

/// The type's name, and its copy for serde's derive of this trait.
fn copy(item: TokenStream, derived: &str) -> Result<(Ident, DeriveInput)> {
    let mut copy: DeriveInput = syn::parse2(item)?;
    if !copy.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &copy.generics,
            format!(
                "castling_sdk's `{derived}` is for types without generics; \
                 for others depend on `serde` and derive `serde::{derived}`"
            ),
        ));
    }
    let name = copy.ident.clone();
    copy.ident = format_ident!("__Copy", span = name.span());
    copy.vis = Visibility::Inherited;
    keep_serde(&mut copy.attrs);
    match &mut copy.data {
        Data::Struct(data) => keep_serde_in(&mut data.fields),
        Data::Enum(data) => {
            for variant in &mut data.variants {
                keep_serde(&mut variant.attrs);
                keep_serde_in(&mut variant.fields);
            }
        }
        Data::Union(_) => {
            let what = format!("a union has no `{derived}`");
            return Err(Error::new_spanned(&name, what));
        }
    }
    Ok((name, copy))
}

fn keep_serde_in(fields: &mut Fields) {
    for field in fields {
        keep_serde(&mut field.attrs);
    }
}

/// The helper attributes of other derives mean nothing on the copy.
fn keep_serde(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| attribute.path().is_ident("serde"));
}
