//! `#[plugin]`: checks the hooks that an `impl` block writes and exports them.

use castling_abi::{ABI_VERSION, EXPORT_CONFIGURE, EXPORT_STATE_RESET, Hook, MANIFEST_SECTION};
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ImplItem, ImplItemFn, ItemImpl, Result, ReturnType, Type, parse_quote};

use crate::arguments::Arguments;
use crate::hooks::{self, Signature};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let block: ItemImpl = match syn::parse2(item.clone()) {
        Ok(block) => block,
        Err(_) => {
            let error = Error::new_spanned(
                &item,
                "`#[plugin]` goes on an `impl` block: `impl MyPlugin { ... }`",
            );
            return both(item, &error);
        }
    };
    match generate(arguments, &block) {
        Ok(exports) => {
            let block = watched(block);
            quote!(#block #exports)
        }
        // The block stays, so that the plugin's other code does not fail for want of it.
        Err(error) => both(item, &error),
    }
}

/// The block, in which each hook tells the fake host of `castling_sdk::testing` that it runs and what it returns, where that is
/// compiled: not in a module.
fn watched(mut block: ItemImpl) -> ItemImpl {
    let items = std::mem::take(&mut block.items);
    for item in items {
        let signature = match &item {
            ImplItem::Fn(function) => hooks::find(&function.sig.ident.to_string()),
            _ => None,
        };
        let (ImplItem::Fn(function), Some(signature)) = (&item, signature) else {
            block.items.push(item);
            continue;
        };
        let mut as_written = function.clone();
        as_written
            .attrs
            .push(parse_quote!(#[cfg(target_arch = "wasm32")]));
        let mut watched = function.clone();
        watched
            .attrs
            .push(parse_quote!(#[cfg(not(target_arch = "wasm32"))]));
        let name = signature.hook.name();
        let body = &function.block;
        let (run, returned) = match (signature.returns, &function.sig.output) {
            ("verdict", ReturnType::Type(_, ty)) => (quote!(decided), quote!(-> #ty)),
            (_, ReturnType::Type(_, ty)) => (quote!(ran), quote!(-> #ty)),
            (_, ReturnType::Default) => (quote!(ran), quote!()),
        };
        watched.block = parse_quote!({
            ::castling_sdk::__private::#run(#name, move || #returned #body)
        });
        block.items.extend([as_written, watched].map(ImplItem::Fn));
    }
    block
}

fn both(item: TokenStream, error: &Error) -> TokenStream {
    let error = error.to_compile_error();
    quote!(#item #error)
}

fn generate(arguments: TokenStream, block: &ItemImpl) -> Result<TokenStream> {
    let arguments = Arguments::parse(arguments)?;
    check_block(block)?;

    let plugin = &block.self_ty;
    let mut errors = Errors(None);
    let mut configure = None;
    let mut exports = TokenStream::new();
    let mut names = Vec::new();
    for item in &block.items {
        let ImplItem::Fn(function) = item else {
            continue;
        };
        let name = function.sig.ident.to_string();
        if name == hooks::CONFIGURE {
            configure = errors.note(configure_call(plugin, function));
        } else if let Some(signature) = hooks::find(&name) {
            names.push(signature.hook.name());
            exports.extend(errors.note(hook_export(plugin, &arguments, signature, function)));
        } else {
            errors.push(not_a_hook(function, &name));
        }
    }
    if names.is_empty() && errors.0.is_none() {
        errors.push(Error::new_spanned(
            plugin,
            format!("the plugin implements no hook; there are {}", hook_list()),
        ));
    }
    if let Err(error) = arguments.check_against(&names, plugin) {
        errors.push(error);
    }
    errors.result()?;

    let configure = configure.unwrap_or_else(|| {
        // The plugin's own span makes "the trait `Default` is not implemented" point at it.
        quote! {
            castling::no_config(json)?;
            castling::Ok(<#plugin as ::core::default::Default>::default())
        }
    });
    let pinned = arguments
        .state
        .as_ref()
        .filter(|_| arguments.keeps_instance());
    let state_type = pinned.map_or_else(|| quote!(()), ToTokens::to_token_stream);
    let reset = pinned.map(|_| {
        let export = format_ident!("{EXPORT_STATE_RESET}");
        quote! {
            #[cfg_attr(target_arch = "wasm32", unsafe(no_mangle))]
            #[allow(dead_code, reason = "called by the host")]
            extern "C" fn #export() {
                castling::state_reset(&PLUGIN);
            }
        }
    });
    let manifest = manifest(&names, &arguments);
    let chained = chained((plugin, &state_type), &names, &arguments, pinned.is_some());
    let export = format_ident!("{EXPORT_CONFIGURE}");
    Ok(quote! {
        const _: () = {
            use ::castling_sdk::__private as castling;

            ::std::thread_local! {
                static PLUGIN: castling::Slot<#plugin, #state_type> = const { castling::Slot::new() };
            }

            #[cfg_attr(target_arch = "wasm32", unsafe(no_mangle))]
            #[allow(dead_code, reason = "called by the host")]
            extern "C" fn #export() -> i32 {
                castling::configure(&PLUGIN, |json| { #configure })
            }

            #exports
            #reset
            #chained
            #manifest
        };
    })
}

/// How a chain of the SDK's tests calls the plugin.
fn chained(
    (plugin, state): (&Type, &TokenStream),
    names: &[&str],
    arguments: &Arguments,
    has_reset: bool,
) -> TokenStream {
    let hooks = names.iter().filter_map(|name| {
        let hook = hooks::find(name)?.hook;
        let (id, export) = (format!("{hook:?}"), hook.export());
        let (id, export) = (format_ident!("{id}"), format_ident!("{export}"));
        Some(quote!((castling::HookId::#id, #export)))
    });
    let reset = has_reset.then(|| quote!(castling::state_reset(&PLUGIN)));
    let variables = arguments.variables.iter().map(|name| name.value());
    quote! {
        #[cfg(not(target_arch = "wasm32"))]
        impl ::castling_sdk::testing::Plugin for #plugin {
            const HOOKS: &'static [(castling::HookId, ::castling_sdk::testing::HookFunction)] = &[#(#hooks),*];

            const VARIABLES: &'static [&'static str] = &[#(#variables),*];

            type Loaded = castling::Loaded<Self, #state>;

            fn load(self) -> Self::Loaded {
                castling::load(self)
            }

            fn swap(other: &mut ::core::option::Option<Self::Loaded>) {
                castling::swap(&PLUGIN, other);
            }

            fn reset() {
                #reset
            }
        }
    }
}

fn check_block(block: &ItemImpl) -> Result<()> {
    if let Some((_, path, _)) = &block.trait_ {
        return Err(Error::new_spanned(
            path,
            "`#[plugin]` goes on the plugin's own `impl` block, not on a trait's",
        ));
    }
    if !block.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &block.generics,
            "a plugin has no generics: the host builds one kind of it",
        ));
    }
    Ok(())
}

fn not_a_hook(function: &ImplItemFn, name: &str) -> Error {
    let meant = hooks::nearest(name).map_or_else(String::new, |nearest| {
        format!("; did you mean `{nearest}`?")
    });
    Error::new_spanned(
        &function.sig.ident,
        format!(
            "`{name}` is not a hook{meant}\nhooks: {}\nhelpers go in an `impl` block of their own, without `#[plugin]`",
            hook_list()
        ),
    )
}

fn hook_list() -> String {
    let names: Vec<_> = hooks::SIGNATURES
        .iter()
        .map(|signature| signature.hook.name())
        .collect();
    names.join(", ")
}

/// The body of `castling_configure`'s closure.
fn configure_call(plugin: &Type, function: &ImplItemFn) -> Result<TokenStream> {
    check_plain(function, hooks::CONFIGURE_TEXT)?;
    let mut inputs = function.sig.inputs.iter();
    let (Some(FnArg::Typed(config)), None) = (inputs.next(), inputs.next()) else {
        return Err(wrong(
            &function.sig,
            "`configure` takes the plugin's config and nothing else",
            hooks::CONFIGURE_TEXT,
        ));
    };
    // The type is inferred: it may be written `Self`, which means nothing where this code goes.
    let parse = quote_spanned!(config.ty.span()=> castling::config(json)?);
    let convert = quote_spanned!(return_span(function)=> castling::plugin::<#plugin, _>(returned));
    Ok(quote! {
        let returned = <#plugin>::configure(#parse);
        #convert
    })
}

/// The exported function of one hook.
fn hook_export(
    plugin: &Type,
    arguments: &Arguments,
    signature: &Signature,
    function: &ImplItemFn,
) -> Result<TokenStream> {
    check_plain(function, signature.text)?;
    let state = arguments.state.as_ref();
    let mut inputs = function.sig.inputs.iter().peekable();
    match inputs.next() {
        Some(FnArg::Receiver(receiver)) if receiver.reference.is_some() => {}
        other => {
            let place =
                other.map_or_else(|| function.sig.to_token_stream(), ToTokens::to_token_stream);
            return Err(wrong(
                &place,
                "a hook begins with `&self` or `&mut self`",
                signature.text,
            ));
        }
    }
    let takes_state = inputs.next_if(|input| is_state(input, state)).is_some();
    for param in signature.params {
        match inputs.next() {
            Some(FnArg::Typed(input)) if param.accepts(&input.ty) => {}
            Some(FnArg::Typed(input)) => {
                return Err(wrong(
                    &input.ty,
                    &format!("expected `{}` here", param.text()),
                    signature.text,
                ));
            }
            _ => {
                return Err(wrong(
                    &function.sig,
                    &format!("`{}` is missing", param.text()),
                    signature.text,
                ));
            }
        }
    }
    if let Some(extra) = inputs.next() {
        let text = match state {
            Some(_) => "the hook has no such parameter",
            None => {
                "the hook has no such parameter (per-request state is declared: `#[plugin(state = Type)]`)"
            }
        };
        return Err(wrong(extra, text, signature.text));
    }

    let hook = format_ident!("{}", signature.hook.name());
    let export = format_ident!("{}", signature.hook.export());
    let returns = format_ident!("{}", signature.returns, span = return_span(function));
    let params: Vec<_> = signature
        .params
        .iter()
        .map(|param| format_ident!("{}", param.name()))
        .collect();
    let state_argument = takes_state.then(|| quote!(_state,));
    let access = match state.filter(|_| takes_state) {
        None => quote!(castling::stateless(&PLUGIN)),
        Some(_) if arguments.keeps_instance() => quote!(castling::in_instance(&PLUGIN)),
        Some(state) if arguments.is_plain() => {
            quote_spanned!(state.span()=> castling::in_request_plain::<_, #state>(&PLUGIN))
        }
        // The state's own place, where rustc says which trait is missing.
        Some(state) => quote_spanned!(state.span()=> castling::in_request::<_, #state>(&PLUGIN)),
    };
    let variables = (signature.hook == Hook::Variable).then(|| {
        let names = arguments.variables.iter().map(|name| name.value());
        quote!(&[#(#names),*],)
    });
    // All of it has the return type's place, so that this is where rustc points when the type is another.
    let convert = quote_spanned!(return_span(function)=> castling::#returns(returned));
    Ok(quote! {
        #[cfg_attr(target_arch = "wasm32", unsafe(no_mangle))]
        #[allow(dead_code, reason = "called by the host")]
        extern "C" fn #export(a: u32, b: u32, c: u32) -> i32 {
            castling::#hook(#access, [a, b, c], #variables |_plugin, _state, #(#params),*| {
                let returned = <#plugin>::#hook(_plugin, #state_argument #(#params),*);
                #convert
            })
        }
    })
}

/// The shape of the function itself.
fn check_plain(function: &ImplItemFn, expected: &str) -> Result<()> {
    let sig = &function.sig;
    if let Some(word) = &sig.asyncness {
        return Err(wrong(
            word,
            "a hook is not `async`: host calls return when the answer is there",
            expected,
        ));
    }
    if !sig.generics.params.is_empty() {
        return Err(wrong(&sig.generics, "a hook has no generics", expected));
    }
    if let Some(attribute) = function
        .attrs
        .iter()
        .find(|attribute| attribute.path().is_ident("cfg"))
    {
        return Err(wrong(
            attribute,
            "the manifest lists hooks before `#[cfg]` is known: put it inside the hook",
            expected,
        ));
    }
    Ok(())
}

fn is_state(input: &FnArg, state: Option<&Type>) -> bool {
    let (FnArg::Typed(input), Some(state)) = (input, state) else {
        return false;
    };
    matches!(&*input.ty, Type::Reference(reference) if *reference.elem == *state)
}

/// Where rustc reports a return type that is not the hook's.
fn return_span(function: &ImplItemFn) -> Span {
    match &function.sig.output {
        ReturnType::Default => function.sig.ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    }
}

fn wrong(place: &impl ToTokens, what: &str, expected: &str) -> Error {
    Error::new_spanned(place, format!("{what}\nexpected: `{expected}`"))
}

/// The custom section. Name and version are those of the plugin's package.
fn manifest(hooks: &[&str], arguments: &Arguments) -> TokenStream {
    let quoted: Vec<_> = hooks.iter().map(|hook| format!("\"{hook}\"")).collect();
    let state = arguments.keeps_instance();
    let more = arguments.manifest();
    let head = format!("{{\"abi\":{ABI_VERSION},\"name\":\"");
    let tail = format!(
        "\",\"sdk\":\"{}\",\"hooks\":[{}],\"state\":{state}{more}}}",
        env!("CARGO_PKG_VERSION"),
        quoted.join(",")
    );
    quote! {
        #[cfg(target_arch = "wasm32")]
        const MANIFEST_TEXT: &str = ::core::concat!(
            #head,
            ::core::env!("CARGO_PKG_NAME"),
            "\",\"version\":\"",
            ::core::env!("CARGO_PKG_VERSION"),
            #tail
        );

        #[cfg(target_arch = "wasm32")]
        #[used]
        #[unsafe(link_section = #MANIFEST_SECTION)]
        static MANIFEST: [u8; MANIFEST_TEXT.len()] = castling::section(MANIFEST_TEXT);
    }
}

/// All that is wrong with a block, so that one build shows it.
struct Errors(Option<Error>);

impl Errors {
    fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    fn result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
