//! Kubernetes objects as people write them.

use std::net::Ipv4Addr;

/// A namespace whose pods are in the mesh.
pub(crate) fn namespace(name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels: {{istio.io/dataplane-mode: ambient, kubernetes.io/metadata.name: {name}}}
"
    )
}

/// A node of the cluster, with a place.
pub(crate) fn node(name: &str, region: &str, zone: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Node
metadata:
  name: {name}
  labels:
    topology.kubernetes.io/region: {region}
    topology.kubernetes.io/zone: {zone}
"
    )
}

/// A pod in the mesh on the node of its name, labelled `app: NAME`.
pub(crate) fn pod(name: &str, ip: Ipv4Addr) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  labels: {{app: {name}, version: v1}}
  annotations: {{ambient.istio.io/redirection: enabled}}
spec:
  nodeName: {name}
  serviceAccountName: {name}
  containers: [{{name: app, image: none, ports: [{{name: web, containerPort: 8080, protocol: TCP}}]}}]
status:
  phase: Running
  podIP: {ip}
  podIPs: [{{ip: {ip}}}]
  conditions: [{{type: Ready, status: \"True\"}}]
"
    )
}

/// The pod of a shared node, on a node of the cluster, as it calls itself to the authority.
pub(crate) fn node_proxy(name: &str, on: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: istio-system, uid: uid-{name}}}
spec:
  nodeName: {on}
  serviceAccountName: ztunnel
  containers: [{{name: proxy, image: none}}]
status: {{phase: Running}}
"
    )
}

/// A service with that address for pods labelled `app: NAME`; port 80 is their port 8080, port 81 the
/// one they call `web`.
pub(crate) fn service(name: &str, vip: Ipv4Addr) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  clusterIP: {vip}
  clusterIPs: [{vip}]
  selector: {{app: {name}}}
  ports:
  - {{name: tcp, port: 80, targetPort: 8080, protocol: TCP}}
  - {{name: tcp-named, port: 81, targetPort: web, protocol: TCP}}
"
    )
}

/// A policy for pods labelled `app: APP`: `action` what `rule` says.
pub(crate) fn policy(name: &str, app: &str, action: &str, rule: &str) -> String {
    format!(
        "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: default}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  action: {action}
  rules: [{rule}]
"
    )
}

/// A waypoint for services, at that address.
pub(crate) fn waypoint(name: &str, ip: Ipv4Addr) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: istio-waypoint}}
spec: {{controllerName: istio.io/mesh-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: {name}
  namespace: default
  labels: {{istio.io/waypoint-for: service}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]
status:
  addresses: [{{type: IPAddress, value: {ip}}}]
  conditions: [{{type: Programmed, status: \"True\", reason: Programmed, lastTransitionTime: \"2026-01-01T00:00:00Z\"}}]
"
    )
}

/// A host that is no pod, in the mesh.
pub(crate) fn workload_entry(name: &str, ip: Ipv4Addr) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: {name}
  namespace: default
  annotations: {{ambient.istio.io/redirection: enabled}}
spec:
  address: {ip}
  serviceAccount: {name}
  labels: {{app: {name}}}
"
    )
}
