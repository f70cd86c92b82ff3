// Istio's own discovery server and certificate authority, over objects from YAML files, and what its
// command line makes of the dump of a node: the peer of tests/istio. No cluster is needed, Kubernetes
// is Istio's own fake of it.
package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "sigs.k8s.io/yaml"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	securityapi "istio.io/client-go/pkg/apis/security/v1"
	"istio.io/istio/istioctl/pkg/writer/ztunnel/configdump"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/mesh/meshwatcher"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/kube/controllers"
	"istio.io/istio/pkg/kube/kclient/clienttest"
	"istio.io/istio/pkg/kube/krt"
	"istio.io/istio/pkg/kube/multicluster"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/security"
	"istio.io/istio/pkg/test"
	pkica "istio.io/istio/security/pkg/pki/ca"
	caserver "istio.io/istio/security/pkg/server/ca"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// run stands in for Go's test runner, which Istio's server under test reports to.
type run struct{ directory string }

func (r *run) Fail()                     { r.FailNow() }
func (r *run) FailNow()                  { os.Exit(1) }
func (r *run) Fatal(args ...any)         { fmt.Fprintln(os.Stderr, args...); r.FailNow() }
func (r *run) Fatalf(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...); r.FailNow() }
func (r *run) Log(args ...any)           { fmt.Fprintln(os.Stderr, args...) }
func (r *run) Logf(f string, a ...any)   { fmt.Fprintf(os.Stderr, f+"\n", a...) }
func (r *run) TempDir() string           { return r.directory }
func (r *run) Helper()                   {}
func (r *run) Cleanup(func())            {}
func (r *run) Skip(args ...any)          { r.Fatal(args...) }

var _ test.Failer = &run{}

// bearer believes what a token says: "SPIFFE-ID" or "SPIFFE-ID node/pod-name/pod-uid".
type bearer struct{}

func (bearer) AuthenticatorType() string { return "bearer" }

func (bearer) Authenticate(ctx security.AuthContext) (*security.Caller, error) {
	token, err := security.ExtractBearerToken(ctx.GrpcContext)
	if err != nil {
		return nil, err
	}
	identity, pod, _ := strings.Cut(token, " ")
	caller := &security.Caller{AuthSource: security.AuthSourceIDToken, Identities: []string{identity}}
	if parts := strings.Split(pod, "/"); len(parts) == 4 {
		caller.KubernetesInfo = security.KubernetesInfo{
			PodNamespace: parts[0], PodName: parts[1], PodUID: parts[2], PodServiceAccount: parts[3],
		}
	}
	return caller, nil
}

// istio is what the two servers share.
type istio struct {
	t         test.Failer
	authority *pkica.IstioCA
	tls       *tls.Config
}

// newIstio makes a root of trust, and writes it where clients look for it.
func newIstio(t test.Failer, root string) istio {
	const lifetime = 24 * time.Hour
	options, err := pkica.NewSelfSignedDebugIstioCAOptions("", lifetime, time.Hour, lifetime, "cluster.local", 2048)
	must(t, err)
	authority, err := pkica.NewIstioCA(options)
	must(t, err)
	certificate, key, err := authority.GenKeyCert([]string{"istiod.istio-system.svc"}, time.Hour, false)
	must(t, err)
	pair, err := tls.X509KeyPair(certificate, key)
	must(t, err)
	must(t, os.WriteFile(root, authority.GetCAKeyCertBundle().GetRootCertPem(), 0o644))
	return istio{t, authority, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}}
}

func must(t test.Failer, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// listen says on which port of this host the server called so is.
func (i istio) listen(name string) net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(i.t, err)
	fmt.Println(name, listener.Addr())
	return tls.NewListener(listener, i.tls)
}

// certify serves the authority. Who may ask in the name of others is looked up in the cluster.
func (i istio) certify(client kube.Client) {
	clusters := multicluster.NewController(multicluster.ControllerOptions{
		Client:          client,
		ClusterID:       "Kubernetes",
		SystemNamespace: "istio-system",
		MeshConfig:      meshwatcher.NewTestWatcher(mesh.DefaultMeshConfig()),
		Debugger:        krt.GlobalDebugHandler,
	})
	server, err := caserver.New(i.authority, time.Hour, []security.Authenticator{bearer{}}, clusters)
	must(i.t, err)
	stop := make(chan struct{})
	must(i.t, clusters.Run(stop))
	client.RunAndWait(stop)
	listener := i.listen("ca")
	grpcServer := grpc.NewServer()
	server.Register(grpcServer)
	go func() { i.t.Fatal(grpcServer.Serve(listener)) }()
}

func put[T controllers.ComparableObject](t test.Failer, client kube.Client, object T, remove bool) {
	writer := clienttest.NewWriter[T](t, client)
	if remove {
		writer.Delete(object.GetName(), object.GetNamespace())
	} else {
		writer.CreateOrUpdate(object)
	}
}

func apply(t test.Failer, client kube.Client, path string, remove bool) {
	text, err := os.ReadFile(path)
	must(t, err)
	for _, document := range strings.Split("\n"+string(text), "\n---") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		json, err := utilyaml.YAMLToJSON([]byte(document))
		must(t, err)
		object, _, err := kube.IstioCodec.UniversalDeserializer().Decode(json, nil, nil)
		if err != nil {
			t.Fatal(err, document)
		}
		if named, ok := object.(controllers.Object); ok && named.GetUID() == "" {
			named.SetUID(types.UID(named.GetNamespace() + "-" + named.GetName()))
		}
		switch object := object.(type) {
		case *corev1.Pod:
			put(t, client, object, remove)
		case *corev1.Service:
			put(t, client, object, remove)
		case *corev1.Node:
			put(t, client, object, remove)
		case *corev1.Namespace:
			put(t, client, object, remove)
		case *discoveryv1.EndpointSlice:
			put(t, client, object, remove)
		case *securityapi.AuthorizationPolicy:
			put(t, client, object, remove)
		case *securityapi.PeerAuthentication:
			put(t, client, object, remove)
		case *networking.ServiceEntry:
			put(t, client, object, remove)
		case *networking.WorkloadEntry:
			put(t, client, object, remove)
		case *gateway.Gateway:
			put(t, client, object, remove)
		case *gateway.GatewayClass:
			put(t, client, object, remove)
		default:
			t.Fatalf("no place for a %T", object)
		}
	}
}

// read prints the dump of a node on standard input as `istioctl ztunnel-config` does.
func read(t test.Failer) {
	dump, err := io.ReadAll(os.Stdin)
	must(t, err)
	reader := &configdump.ConfigWriter{Stdout: os.Stdout}
	must(t, reader.Prime(dump))
	must(t, reader.PrintWorkloadSummary(configdump.WorkloadFilter{}))
	must(t, reader.PrintServiceSummary(configdump.ServiceFilter{}))
	must(t, reader.PrintPolicySummary(configdump.PolicyFilter{}))
	must(t, reader.PrintSecretSummary())
	must(t, reader.PrintConnectionsSummary(configdump.ConnectionsFilter{}))
}

func main() {
	directory, err := os.MkdirTemp("", "istio-peer")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(directory)
	runtime.GOMAXPROCS(2)
	logging := log.DefaultOptions()
	logging.OutputPaths = []string{"stderr"}
	logging.SetDefaultOutputLevel(log.OverrideScopeName, log.WarnLevel)
	logging.SetDefaultOutputLevel("delta", log.DebugLevel)
	if err := log.Configure(logging); err != nil {
		panic(err)
	}
	t := &run{directory}
	if len(os.Args) != 2 {
		t.Fatal("usage: istio FILE-FOR-THE-ROOT | istio read")
	}
	if os.Args[1] == "read" {
		read(t)
		return
	}
	istio := newIstio(t, os.Args[1])
	server := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		ListenerBuilder: func() (net.Listener, error) { return istio.listen("xds"), nil },
		DebounceTime:    10 * time.Millisecond,
	})
	server.Discovery.Authenticators = []security.Authenticator{bearer{}}
	istio.certify(server.KubeClient())
	fmt.Println("ready")
	// Orders, a line each: "apply FILE" or "delete FILE"; the end of input ends the program.
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		verb, path, _ := strings.Cut(orders.Text(), " ")
		apply(t, server.KubeClient(), path, verb == "delete")
		fmt.Println("done", orders.Text())
	}
}
