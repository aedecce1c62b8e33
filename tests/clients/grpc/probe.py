"""gRPC's own health and reflection clients against a sidewing, as grpcurl and probes use them, told as JSON.

    probe.py HOST:PORT
"""

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha import reflection_pb2

FLIGHT = "arrow.flight.protocol.FlightService"


def health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    status = health_pb2.HealthCheckResponse.ServingStatus
    check = lambda service: status.Name(stub.Check(health_pb2.HealthCheckRequest(service=service)).status)
    told = {service: check(service) for service in ["", FLIGHT]}
    try:
        check("nothing")
    except grpc.RpcError as error:
        told["nothing"] = error.code().name
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
    told["watched"] = status.Name(next(watch).status)
    watch.cancel()
    return told


def services_by(channel, version):
    """The services that this version of the protocol lists; its messages are the same in both."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    answers = call(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    return sorted(service.name for service in next(answers).list_services_response.service)


def described(channel):
    """Methods and messages found through the reflection database, as grpcurl describes them."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    service = pool.FindServiceByName(FLIGHT)
    command = pool.FindMessageTypeByName("arrow.flight.protocol.sql.CommandGetTables")
    return {
        "methods": [method.name for method in service.methods],
        "fields": [field.name for field in command.fields],
        "health": [method.name for method in pool.FindServiceByName("grpc.health.v1.Health").methods],
    }


def main(address):
    with grpc.insecure_channel(address) as channel:
        told = {
            "health": health(channel),
            "v1": services_by(channel, "v1"),
            "v1alpha": services_by(channel, "v1alpha"),
            "described": described(channel),
        }
    print(json.dumps(told))


main(sys.argv[1])
