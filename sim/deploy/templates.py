"""The texts for a deployment's folders: the configuration of the proxy, systemd units and containers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from sim.deploy.credentials import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY
from sim.deploy.settings import Deployment, ServerSettings

Role = Literal["server", "node"]


# What one node has under way at most: Flower pushes and pulls two objects at a time, and polls and beats beside them.
REQUESTS_PER_NODE, BODIES_PER_NODE = 16, 4
# An object of a message is a chunk of an array of at most 5 MiB, whatever the codec and the number of public samples:
# larger arrays make more objects, not larger ones. Every other request of a node is far below a megabyte.
OBJECT_BYTES, OTHER_BYTES = 6 << 20, 1 << 20
# A round of a node takes some tens of requests, and some hundreds where weights are exchanged; Flower tries again
# after a 503.
RATE_PER_NODE, BURST_PER_NODE = 100, 400


def proxy(settings: ServerSettings, keys: Mapping[str, str]) -> str:
    """The configuration of nginx: it serves the routes of the nodes over TLS, and never the SuperLink's control routes.

    Only requests with the public key of a node reach the SuperLink, which reads a body before it checks the signature:
    all others are refused before their body is read. What comes with such a key is limited for each node, for each
    address (behind which all nodes may be) and in all.

    The file is in the state of the server. Paths are relative, so that the folder can be moved: nginx looks for
    certificates from the folder of the configuration, for all else from that of the server. Nothing is buffered in
    files: the workers need no folder.

    Args:
        settings: the settings of the server.
        keys: the name of each node -> its public key, as :func:`sim.deploy.credentials.key_header` gives it.
    """
    known = "".join(f'        "{key}" {name};\n' for name, key in keys.items())
    all_requests = REQUESTS_PER_NODE * max(1, len(keys))
    return f"""\
# The only way to the server: the routes of the nodes, over TLS. This file is made from server.yaml at every start.
daemon off;
worker_processes 1;
pid state/nginx.pid;
error_log stderr warn;

worker_rlimit_nofile 4096;
events {{ worker_connections 2048; }}

http {{
    server_tokens off;
    map_hash_max_size 4096;
    map_hash_bucket_size 512;
    # What was refused is told, and nothing else.
    map $status $is_refused {{ ~^[45] 1; default 0; }}
    log_format refused '$remote_addr "$request_method $uri" $status $node';
    access_log /dev/stderr refused if=$is_refused;

    # The name of the node that the public key of a request belongs to; empty for strangers.
    map $http_flwr_public_key $node {{
        default "";
{known}    }}
    limit_conn_zone $node zone=node:1m;
    limit_conn_zone $node zone=bodies:1m;
    limit_conn_zone $binary_remote_addr zone=address:1m;
    limit_conn_zone $server_port zone=all:1m;
    limit_req_zone $node zone=rate:1m rate={RATE_PER_NODE}r/s;

    # Who is slower than this is not waited for.
    client_header_timeout 10s;
    client_body_timeout 15s;
    send_timeout 30s;
    keepalive_timeout 30s;
    reset_timedout_connection on;
    client_max_body_size {OTHER_BYTES >> 20}m;
    client_body_temp_path state/nginx-body;
    proxy_temp_path state/nginx-proxy;
    fastcgi_temp_path state/nginx-unused;
    uwsgi_temp_path state/nginx-unused;
    scgi_temp_path state/nginx-unused;

    upstream superlink {{
        server 127.0.0.1:{settings.superlink_port};
        keepalive 32;
    }}

    server {{
        listen {settings.bind}:{settings.port} ssl;
        ssl_certificate ../{SERVER_CERTIFICATE};
        ssl_certificate_key ../{SERVER_KEY};
        ssl_protocols TLSv1.2 TLSv1.3;

        limit_conn address {all_requests};
        limit_conn all {2 * all_requests};
        limit_conn node {REQUESTS_PER_NODE};
        limit_req zone=rate burst={BURST_PER_NODE} nodelay;

        location /v1/fleet/ {{
            if ($node = "") {{ return 401; }}
            # The address has a path: so nginx passes on the path that it matched, with `..` and escapes resolved.
            proxy_pass https://superlink/v1/fleet/;
            proxy_ssl_trusted_certificate ../{CA_CERTIFICATE};
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_read_timeout 120s;

            location /v1/fleet/push-object {{
                if ($node = "") {{ return 401; }}
                client_max_body_size {OBJECT_BYTES >> 20}m;
                limit_conn bodies {BODIES_PER_NODE};
                limit_conn node {REQUESTS_PER_NODE};
                limit_conn address {all_requests};
                limit_conn all {2 * all_requests};
                proxy_pass https://superlink/v1/fleet/push-object;
            }}
        }}

        # Whoever reaches the control routes can run code on every node.
        location / {{ return 404; }}
    }}
}}
"""


def unit(role: Role) -> str:
    """A systemd unit; it expects the folder at /etc/softbeam/ROLE and the checkout at /opt/softbeam."""
    return f"""\
# Clone the checkout to /opt/softbeam and run `make .venv/installed` there: a .venv works only where it was made.
# cp this file to /etc/systemd/system/, this folder to /etc/softbeam/{role}; then:
# useradd --system softbeam; chown -R softbeam /etc/softbeam/{role}; systemctl enable --now softbeam-{role}
[Unit]
Description=Softbeam {role}
Wants=network-online.target
After=network-online.target time-sync.target

[Service]
User=softbeam
WorkingDirectory=/opt/softbeam
ExecStart=/opt/softbeam/.venv/bin/softbeam deploy {role} /etc/softbeam/{role}
Restart=always
RestartSec=10
KillMode=mixed
TimeoutStopSec=45
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ReadWritePaths=/etc/softbeam/{role}

[Install]
WantedBy=multi-user.target
"""


COPIES = "".join(f"COPY {room} {room}\n" for room in ("configs", "strategies", "clients", "server", "sim", "softbeam"))
"""What every image has of the checkout."""


def containerfile(role: Role) -> str:
    """An image of the checkout; the machine's folder is mounted at /machine."""
    proxy_install = (
        "RUN apt-get update && apt-get install -y --no-install-recommends nginx-light && rm -rf /var/lib/apt/lists/*\n"
        if role == "server"
        else ""
    )
    return f"""\
# Build in the checkout: docker build -f THIS_FILE -t softbeam-{role} .
FROM python:3.11-slim
{proxy_install}WORKDIR /opt/softbeam
COPY pyproject.toml constraints.txt README.md LICENSE ./
{COPIES}RUN pip install --no-cache-dir --constraint constraints.txt --editable ".[export]"
VOLUME /machine
CMD ["softbeam", "deploy", "{role}", "/machine"]
"""


def predict_unit() -> str:
    """A systemd unit that serves beams from the store of a node; it needs neither torch nor the unit of the node."""
    return """\
# On the machine of the node it serves what softbeam-node publishes. On another one without torch: clone the checkout to
# /opt/softbeam; python3 -m venv .venv; .venv/bin/pip install -r requirements-node.txt; copy the store to
# /etc/softbeam/node/models, its folder versions first and store.json last.
# cp this file to /etc/systemd/system/; mkdir /etc/softbeam/node/incoming; systemctl enable --now softbeam-predict
# Sensors move recordings into incoming/, or add lines to its .jsonl files. The answers, as lines of JSON:
# journalctl --unit softbeam-predict --output cat --follow
[Unit]
Description=Softbeam predict

[Service]
User=softbeam
WorkingDirectory=/opt/softbeam
Environment=OMP_NUM_THREADS=1
ExecStart=/opt/softbeam/.venv/bin/python -m softbeam predict /etc/softbeam/node/models /etc/softbeam/node/incoming \\
    --watch --json
# Until a first version is published there is nothing to serve.
Restart=always
RestartSec=10
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
PrivateNetwork=yes
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible

[Install]
WantedBy=multi-user.target
"""


def predict_containerfile() -> str:
    """An image without torch that serves beams from the store of a node, whose folder is mounted at /machine."""
    return f"""\
# Build in the checkout: docker build -f THIS_FILE -t softbeam-predict .
# Run: docker run --network none --volume FOLDER:/machine:ro softbeam-predict
# Sensors move recordings into FOLDER/incoming, or add lines to its .jsonl files; answers are lines of JSON.
FROM python:3.11-slim
WORKDIR /opt/softbeam
COPY requirements-node.txt ./
RUN pip install --no-cache-dir --requirement requirements-node.txt
{COPIES}ENV OMP_NUM_THREADS=1
VOLUME /machine
CMD ["python", "-m", "softbeam", "predict", "/machine/models", "/machine/incoming", "--watch", "--json"]
"""


def can_compose(deployment: Deployment) -> bool:
    """Whether containers can find the server by its host: that is a name, and not one of the loopback.

    Docker cannot give an address as a name, and ``localhost`` means the container itself in every container.
    """
    host = deployment.host.lower()
    return not (re.fullmatch(r"[\d.]+", host) or host == "localhost" or host.endswith(".localhost"))


def compose(deployment: Deployment) -> str:
    """A file for Docker Compose: all machines of a deployment as containers on one machine, if :func:`can_compose`.

    There the name of the server is the name in its certificate.
    """
    services = [_service("server", "server", f'    ports: ["{deployment.port}:{deployment.port}"]\n', deployment)]
    services += [
        _service(node.name, "node", "    depends_on: [server]\n", deployment, folder=f"nodes/{node.name}")
        for node in deployment.nodes
    ]
    return (
        "# Build the two images first, as their Containerfiles say; the proxy has to listen at every address of its\n"
        "# container: set bind: 0.0.0.0 in server/server.yaml. Then: docker compose up --detach\n"
        "# A run: docker compose exec server softbeam run CONFIG --on /machine --out /machine/state/runs\n"
        "services:\n" + "".join(services) + f"networks:\n  default: {{name: softbeam-{deployment.nodes[0].name}}}\n"
    )


def _service(name: str, role: Role, extra: str, deployment: Deployment, folder: str = "server") -> str:
    aliases = f"    networks: {{default: {{aliases: [{deployment.host!r}]}}}}\n" if role == "server" else ""
    return (
        f"  {name}:\n    image: softbeam-{role}\n    restart: always\n"
        f'    volumes: ["./{folder}:/machine"]\n{extra}{aliases}'
    )
