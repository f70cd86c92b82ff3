//! Writes local state files: workloads, services and policies in the reference's YAML.

use std::fmt::Write as _;
use std::net::IpAddr;

/// A document in the making.
#[derive(Clone, Debug, Default)]
pub struct State {
    workloads: Vec<String>,
    services: Vec<String>,
    policies: Vec<String>,
}

/// A workload of namespace `default`, its account named like itself.
#[derive(Clone, Debug)]
pub struct Workload<'a> {
    /// Name, account and canonical name.
    pub name: &'a str,
    /// Addresses.
    pub ips: &'a [IpAddr],
    /// Whether it speaks HBONE.
    pub hbone: bool,
    /// Services it is an endpoint of, with (service port, target port).
    pub services: &'a [(&'a str, u16, u16)],
}

impl State {
    /// Adds a workload.
    #[must_use]
    pub fn workload(mut self, workload: &Workload<'_>) -> Self {
        let Workload {
            name,
            ips,
            hbone,
            services,
        } = workload;
        let ips: Vec<String> = ips.iter().map(|ip| format!("\"{ip}\"")).collect();
        let protocol = if *hbone { "HBONE" } else { "TCP" };
        let mut text = format!(
            "- uid: cluster1//Pod/default/{name}
  name: {name}
  namespace: default
  serviceAccount: {name}
  trustDomain: cluster.local
  workloadIps: [{}]
  protocol: {protocol}
  workloadName: {name}-owner
  workloadType: deployment
  canonicalName: {name}
  canonicalRevision: v1
  clusterId: Kubernetes
  services:",
            ips.join(", ")
        );
        if services.is_empty() {
            text.push_str(" {}");
        }
        for (service, port, target) in *services {
            let host = host_name(service);
            write!(text, "\n    \"default/{host}\": {{{port}: {target}}}").expect("to a string");
        }
        self.workloads.push(text);
        self
    }

    /// Adds a service of namespace `default` with its addresses.
    #[must_use]
    pub fn service(mut self, name: &str, vips: &[IpAddr], port: u16, target: u16) -> Self {
        let vips: Vec<String> = vips.iter().map(|ip| format!("\"/{ip}\"")).collect();
        self.services.push(format!(
            "- name: {name}
  namespace: default
  hostname: {}
  vips: [{}]
  ports: {{{port}: {target}}}",
            host_name(name),
            vips.join(", ")
        ));
        self
    }

    /// Adds settings to the last workload, for example `waypoint: {...}`, in flow style.
    ///
    /// # Panics
    /// If there is none yet.
    #[must_use]
    pub fn workload_with(mut self, setting: &str) -> Self {
        let last = self.workloads.last_mut().expect("a workload");
        write!(last, "\n  {setting}").expect("to a string");
        self
    }

    /// Adds settings to the last service, in flow style.
    ///
    /// # Panics
    /// If there is none yet.
    #[must_use]
    pub fn service_with(mut self, setting: &str) -> Self {
        let last = self.services.last_mut().expect("a service");
        write!(last, "\n  {setting}").expect("to a string");
        self
    }

    /// Adds a policy of namespace `default` that only workloads which name it have.
    #[must_use]
    pub fn selected_policy(mut self, name: &str, action: &str, rules: &str) -> Self {
        self = self.policy(name, action, rules);
        let last = self.policies.last_mut().expect("just added");
        *last = last.replace("scope: Namespace", "scope: WorkloadSelector");
        self
    }

    /// Adds a policy of namespace `default`; `rules` in flow style, for example
    /// `[[[{destinationPorts: [80]}]]]`.
    #[must_use]
    pub fn policy(mut self, name: &str, action: &str, rules: &str) -> Self {
        self.policies.push(format!(
            "- name: {name}
  namespace: default
  scope: Namespace
  action: {action}
  dryRun: false
  rules: {rules}"
        ));
        self
    }

    /// The same document without policies.
    #[must_use]
    pub fn without_policies(mut self) -> Self {
        self.policies.clear();
        self
    }

    /// The document.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        let sections = [
            ("workloads", &self.workloads),
            ("services", &self.services),
            ("policies", &self.policies),
        ];
        for (key, items) in sections {
            if items.is_empty() {
                writeln!(text, "{key}: []").expect("to a string");
            } else {
                writeln!(text, "{key}:\n{}", items.join("\n")).expect("to a string");
            }
        }
        text
    }
}

/// Host name of a service of namespace `default`.
#[must_use]
pub fn host_name(service: &str) -> String {
    format!("{service}.default.svc.cluster.local")
}
