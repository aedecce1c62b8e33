//! Spicepods as text, for tests whose subject is not the spicepod itself.

use super::upstream::Upstream;

/// A dataset entry.
#[derive(Debug, Clone)]
pub struct Dataset {
    name: String,
    from: String,
    params: Vec<(String, String)>,
    /// Further fields, each a line of YAML.
    fields: Vec<String>,
}

/// A whole spicepod with these datasets; `rest` is further top-level YAML (`views:`, `runtime:`), or empty.
pub fn spicepod(datasets: &[Dataset], rest: &str) -> String {
    let datasets: String = datasets.iter().map(Dataset::yaml).collect();
    format!("version: v1\nkind: Spicepod\nname: test\ndatasets:\n{datasets}{rest}")
}

impl Dataset {
    /// A `spice.ai` dataset at a URL; the upstream's table has the same name unless [`Dataset::table`] says
    /// another.
    pub fn at(name: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            from: format!("spice.ai:{url}"),
            params: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// The same at a fake upstream.
    pub fn of(name: &str, upstream: &Upstream) -> Self {
        Self::at(name, &upstream.url())
    }

    /// A `flightsql` dataset of a table: scanned, unless a dialect is set.
    pub fn flightsql(name: &str, table: &str, upstream: &Upstream) -> Self {
        let dataset = Self {
            name: name.to_owned(),
            from: format!("flightsql:{table}"),
            params: Vec::new(),
            fields: Vec::new(),
        };
        dataset.param("flightsql_endpoint", &upstream.url())
    }

    /// Names the upstream's table as SQL does; the address moves into a param.
    pub fn table(mut self, table: &str) -> Self {
        let url = self.from.trim_start_matches("spice.ai:").to_owned();
        self.from = format!("spice.ai:{table}");
        self.param("spiceai_endpoint", &url)
    }

    /// Sets a connector param.
    pub fn param(mut self, key: &str, value: &str) -> Self {
        self.params.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Keeps it in the sidecar; `settings` are those of `acceleration` in YAML's flow form, or empty.
    pub fn accelerated(self, settings: &str) -> Self {
        self.field(&format!("acceleration: {{enabled: true, {settings}}}"))
    }

    /// Adds a field of the dataset, as a line of YAML.
    pub fn field(mut self, line: &str) -> Self {
        self.fields.push(line.to_owned());
        self
    }

    /// Trusts only this CA file.
    pub fn ca(self, file: &std::path::Path) -> Self {
        self.param("spiceai_tls_ca_certificate_file", &file.to_string_lossy())
    }

    fn yaml(&self) -> String {
        // Text in JSON's quotes is text in YAML's.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut yaml = format!("  - name: {}\n    from: {}\n", quoted(&self.name), quoted(&self.from));
        if !self.params.is_empty() {
            yaml.push_str("    params:\n");
        }
        for (key, value) in &self.params {
            yaml.push_str(&format!("      {key}: {}\n", quoted(value)));
        }
        for line in &self.fields {
            yaml.push_str(&format!("    {line}\n"));
        }
        yaml
    }
}
