//! Has each chunk of a response copied to it, looks at it, and lets it pass: the plugin `pass`, for Envoy.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

proxy_wasm::main! {{
    proxy_wasm::set_http_context(|_, _| -> Box<dyn HttpContext> { Box::new(Pass) });
}}

struct Pass;

impl Context for Pass {}

impl HttpContext for Pass {
    fn on_http_response_body(&mut self, size: usize, _: bool) -> Action {
        std::hint::black_box(self.get_http_response_body(0, size).map(|chunk| chunk.len()));
        Action::Continue
    }
}
