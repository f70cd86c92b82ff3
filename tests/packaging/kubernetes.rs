//! The DaemonSet of packaging/kubernetes: its facts are the program's.

use std::path::Path;

use corelane::config::server::{ROOTS_DEFAULT, TOKEN_DEFAULT};
use corelane::config::{READINESS_PORT, STATS_PORT};
use serde_json::{Value, json};

use crate::chart::{ARGUMENTS, CAPABILITIES};
use crate::{config_show, text};

const FOLDER: &str = "packaging/kubernetes";

/// The one document of a file.
fn document(name: &str) -> Value {
    let text = text(&format!("{FOLDER}/{name}"));
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let [document] = <[Value; 1]>::try_from(documents).unwrap();
    document
}

fn daemon_set() -> Value {
    document("daemonset.yaml")
}

fn pod(set: &Value) -> &Value {
    &set["spec"]["template"]["spec"]
}

fn container(set: &Value) -> &Value {
    &pod(set)["containers"][0]
}

/// The entry of a list by its `name`.
fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    let found = list
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// Variables with what the kubelet would fill in.
fn environment(set: &Value) -> Vec<(String, String)> {
    let variables = container(set)["env"].as_array().unwrap().iter();
    let mut all: Vec<_> = variables
        .map(|variable| {
            let value = match (&variable["value"], &variable["valueFrom"]) {
                (Value::String(value), _) => value.clone(),
                (_, from) if from["fieldRef"]["fieldPath"] == "status.podIP" => "10.0.0.1".into(),
                (_, from) if from["resourceFieldRef"]["resource"] == "limits.cpu" => "8".into(),
                (_, from) => {
                    assert!(from["fieldRef"]["fieldPath"].is_string(), "{variable}");
                    "a-name".to_owned()
                }
            };
            (variable["name"].as_str().unwrap().to_owned(), value)
        })
        .collect();
    all.push(("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into()));
    all
}

fn shown() -> crate::Printed {
    let environment = environment(&daemon_set());
    let environment: Vec<_> = environment.iter().map(|(n, v)| (&**n, &**v)).collect();
    let dir = tempfile::tempdir().unwrap();
    config_show(&[], &environment, dir.path())
}

#[test]
fn its_environment_is_accepted_without_a_warning() {
    let shown = shown();
    assert!(shown.succeeded && shown.err.is_empty(), "{}", shown.err);
    assert_eq!(shown.value("mode"), Some("shared"));
    assert_eq!(shown.value("timeouts.drain"), Some("25s"));
    assert_eq!(
        shown.value("ISTIO_META_DNS_CAPTURE"),
        Some("true"),
        "istio-cni captures it"
    );
}

#[test]
fn arguments_and_privileges_are_those_of_the_reference() {
    let set = daemon_set();
    let container = container(&set);
    assert_eq!(container["args"], json!(ARGUMENTS));
    let security = &container["securityContext"];
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(security["capabilities"]["add"], json!(CAPABILITIES));
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["privileged"], false);
    assert_eq!(security["runAsGroup"], 1337);
    assert_eq!(
        security["runAsUser"], 0,
        "capabilities are added to root only"
    );
    for init in pod(&set)["initContainers"].as_array().unwrap() {
        assert_eq!(
            init["securityContext"]["capabilities"]["drop"],
            json!(["ALL"])
        );
        assert!(init["securityContext"]["capabilities"]["add"].is_null());
    }
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod(&set)[host].is_null(), "{host}");
    }
}

#[test]
fn ports_and_probes_are_the_programs() {
    let set = daemon_set();
    let container = container(&set);
    let probe = &container["readinessProbe"]["httpGet"];
    assert_eq!(
        (&probe["path"], &probe["port"]),
        (&"/healthz/ready".into(), &READINESS_PORT.into())
    );
    assert!(
        container["livenessProbe"].is_null(),
        "a control plane that is away restarts nobody"
    );
    let ports: Vec<_> = container["ports"].as_array().unwrap().iter().collect();
    assert_eq!(ports[0]["containerPort"], STATS_PORT);
    assert_eq!(ports[1]["containerPort"], READINESS_PORT);
    let annotations = &set["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], STATS_PORT.to_string());
    assert_eq!(annotations["prometheus.io/path"], "/stats/prometheus");
}

#[test]
fn mounts_are_where_the_program_looks() {
    let set = daemon_set();
    let (pod, container) = (pod(&set), container(&set));
    let mounted = |volume: &str| named(&container["volumeMounts"], volume)["mountPath"].clone();
    let volume = |name: &str| named(&pod["volumes"], name);
    // Defaults are relative to the working directory, which is `/` in the image.
    let folder = |file: &str| {
        let file = Path::new("/").join(file.trim_start_matches("./"));
        let [folder, name] = [
            file.parent().unwrap().as_os_str(),
            file.file_name().unwrap(),
        ];
        [folder, name].map(|part| part.to_str().unwrap().to_owned())
    };
    let [roots, _] = folder(ROOTS_DEFAULT);
    assert_eq!(mounted("istiod-ca-cert"), roots);
    assert_eq!(
        volume("istiod-ca-cert")["configMap"]["name"],
        "istio-ca-root-cert"
    );
    let [tokens, token] = folder(TOKEN_DEFAULT);
    assert_eq!(mounted("istio-token"), tokens);
    let projected = &volume("istio-token")["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(projected["path"], token);
    assert_eq!(projected["audience"], "istio-ca");
    let shown = shown();
    let socket = Path::new(shown.value("inpod.socket").unwrap());
    let socket = socket.parent().unwrap().to_str().unwrap();
    assert_eq!(mounted("agent-socket"), socket);
    assert_eq!(volume("agent-socket")["hostPath"]["path"], socket);
    assert_eq!(
        Some(mounted("cache").as_str().unwrap()),
        shown.value("xds.cacheDir")
    );
    assert!(volume("cache")["emptyDir"].is_object());
}

#[test]
fn the_profile_is_put_where_the_kubelet_looks_for_the_one_that_is_asked_for() {
    let (set, kustomization) = (daemon_set(), document("kustomization.yaml"));
    let profile = &container(&set)["securityContext"]["seccompProfile"];
    assert_eq!(profile["type"], "Localhost");
    let name = profile["localhostProfile"].as_str().unwrap();
    let generator = &kustomization["configMapGenerator"][0];
    assert_eq!(generator["files"], json!([name]));
    assert!(!text(&format!("{FOLDER}/{name}")).is_empty());
    let volumes = &pod(&set)["volumes"];
    assert_eq!(
        named(volumes, "seccomp-source")["configMap"]["name"],
        generator["name"]
    );
    assert_eq!(
        named(volumes, "seccomp")["hostPath"]["path"],
        "/var/lib/kubelet/seccomp"
    );
    let init = &pod(&set)["initContainers"][0];
    let at = |volume: &str| {
        let mount = &named(&init["volumeMounts"], volume)["mountPath"];
        format!("{}/{name}", mount.as_str().unwrap())
    };
    assert_eq!(
        init["command"],
        json!(["cp", at("seccomp-source"), at("seccomp")])
    );
}

#[test]
fn it_runs_everywhere_is_evicted_last_and_is_updated_without_a_gap() {
    let set = daemon_set();
    let pod = pod(&set);
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    let effects: Vec<_> = pod["tolerations"].as_array().unwrap().iter().collect();
    for effect in ["NoSchedule", "NoExecute"] {
        let tolerated = |t: &&&Value| t["effect"] == effect && t["operator"] == "Exists";
        assert!(effects.iter().any(|t| tolerated(&t)), "{effect}");
    }
    let update = &set["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(
        (&update["maxSurge"], &update["maxUnavailable"]),
        (&1.into(), &0.into())
    );
    assert_eq!(
        shown().value("inpod.portReuse"),
        Some("true"),
        "both listen during an update"
    );
    let grace = pod["terminationGracePeriodSeconds"]
        .as_u64()
        .unwrap()
        .to_string();
    let environment = environment(&set);
    let told = environment
        .iter()
        .find(|(name, _)| name == "TERMINATION_GRACE_PERIOD_SECONDS");
    assert_eq!(told.map(|(_, value)| value), Some(&grace));
}

#[test]
fn the_account_is_the_one_istiod_trusts_and_has_no_rights_in_the_cluster() {
    let (set, account) = (daemon_set(), document("serviceaccount.yaml"));
    let kustomization = document("kustomization.yaml");
    assert_eq!(kustomization["namespace"], "istio-system");
    assert_eq!(account["metadata"]["name"], "ztunnel");
    assert_eq!(pod(&set)["serviceAccountName"], "ztunnel");
    assert_eq!(pod(&set)["automountServiceAccountToken"], false);
    let resources = kustomization["resources"].as_array().unwrap();
    let kinds: Vec<_> = resources
        .iter()
        .map(|file| document(file.as_str().unwrap())["kind"].clone())
        .collect();
    assert_eq!(
        kinds,
        ["ServiceAccount", "DaemonSet"],
        "no Role and no RoleBinding"
    );
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["app"], "ztunnel", "istioctl finds pods by it");
    assert_eq!(set["spec"]["selector"]["matchLabels"]["app"], "ztunnel");
}
