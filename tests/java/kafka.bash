# Starts and stops a Kafka from its jars, in KRaft mode, for the scripts that source this file.
#
#   kafka_format WORK    a data folder WORK/data, ports of its own, WORK/server.properties
#   kafka_start WORK     returns once it answers at 127.0.0.1:$kafka_port
#   kafka_stop SIGNAL    TERM for a clean stop, KILL
#
# A script that sources this calls kafka_stop KILL in its cleanup.
kafka_pid=
kafka_java=(java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn
  -cp "$("$(dirname "${BASH_SOURCE[0]}")/classpath")")

kafka_format() {
  local work=$1 controller_port
  read -r kafka_port controller_port < <(python3 -c '
import socket
sockets = [socket.socket() for _ in range(2)]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))')
  cat > "$work/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=0
controller.quorum.voters=0@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$kafka_port,CONTROLLER://127.0.0.1:$controller_port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$work/data
offsets.topic.num.partitions=8
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
  # Without replicas there is nothing that eligible leader replicas could add.
  "${kafka_java[@]}" -Xmx128m kafka.tools.StorageTool format --cluster-id Q0hoYlLNRs6RFkDRgt58Vg \
    --config "$work/server.properties" --feature eligible.leader.replicas.version=0 >"$work/kafka.log" 2>&1
}

kafka_start() {
  local work=$1
  "${kafka_java[@]}" -Xmx512m kafka.Kafka "$work/server.properties" >>"$work/kafka.log" 2>&1 &
  kafka_pid=$!
  for _ in $(seq 240); do
    if (: </dev/tcp/127.0.0.1/"$kafka_port") 2>/dev/null; then return; fi
    sleep 0.25
  done
  tail -20 "$work/kafka.log"
  return 1
}

kafka_stop() {
  if [ -n "$kafka_pid" ]; then
    kill -"$1" "$kafka_pid" 2>/dev/null || true
    wait "$kafka_pid" 2>/dev/null || true
    kafka_pid=
  fi
}
