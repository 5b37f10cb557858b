package main

import (
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/rpc"

	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

//go:embed descriptors.bin
var descriptors []byte

const contract = "workflow.plugin.external.iac."

// object is a message as JSON: names of the contract, bytes in Base64.
type object = map[string]any

type call func(context.Context, object) (object, error)

type stream func(context.Context, object, func(object) error) error

// GRPCServer registers every service that has a handler.
func (p *provider) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(descriptors, &set); err != nil {
		return err
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return err
	}
	calls, streams := p.calls(), p.streams()
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			desc := describe(service, calls, streams)
			if len(desc.Methods)+len(desc.Streams) == 0 {
				continue
			}
			server.RegisterService(desc, p)
			p.services = append(p.services, string(service.FullName()))
		}
		return true
	})
	return nil
}

// GRPCClient is never used: this is not a host.
func (p *provider) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this is a plugin")
}

// Server and Client are of the library's old protocol.
func (p *provider) Server(*plugin.MuxBroker) (any, error) { return nil, errors.New("gRPC only") }

func (p *provider) Client(*plugin.MuxBroker, *rpc.Client) (any, error) {
	return nil, errors.New("gRPC only")
}

func describe(service protoreflect.ServiceDescriptor, calls map[string]call, streams map[string]stream) *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: string(service.FullName()), HandlerType: (*any)(nil)}
	for i := range service.Methods().Len() {
		method := service.Methods().Get(i)
		name := string(service.Name()) + "/" + string(method.Name())
		if handle, ok := calls[name]; ok {
			desc.Methods = append(desc.Methods, grpc.MethodDesc{
				MethodName: string(method.Name()),
				Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
					in := dynamicpb.NewMessage(method.Input())
					if err := decode(in); err != nil {
						return nil, err
					}
					request, err := toObject(in)
					if err != nil {
						return nil, err
					}
					answer, err := handle(ctx, request)
					if err != nil {
						return nil, err
					}
					return toMessage(answer, method.Output())
				},
			})
		}
		if handle, ok := streams[name]; ok {
			desc.Streams = append(desc.Streams, grpc.StreamDesc{
				StreamName:    string(method.Name()),
				ServerStreams: true,
				Handler: func(_ any, wire grpc.ServerStream) error {
					in := dynamicpb.NewMessage(method.Input())
					if err := wire.RecvMsg(in); err != nil {
						return err
					}
					request, err := toObject(in)
					if err != nil {
						return err
					}
					return handle(wire.Context(), request, func(piece object) error {
						out, err := toMessage(piece, method.Output())
						if err != nil {
							return err
						}
						return wire.SendMsg(out)
					})
				},
			})
		}
	}
	return desc
}

func toObject(message proto.Message) (object, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	var all object
	return all, json.Unmarshal(text, &all)
}

func toMessage(answer object, kind protoreflect.MessageDescriptor) (proto.Message, error) {
	if answer == nil {
		answer = object{}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	out := dynamicpb.NewMessage(kind)
	if err := protojson.Unmarshal(text, out); err != nil {
		return nil, status.Errorf(codes.Internal, "the answer does not fit %s: %v", kind.FullName(), err)
	}
	return out, nil
}

// jsonField reads one of the contract's *_json fields.
func jsonField(message object, name string) (object, error) {
	text, _ := message[name].(string)
	bytes, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(bytes) == 0 {
		return object{}, err
	}
	var all object
	if err := json.Unmarshal(bytes, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return all, nil
}

// jsonBytes writes one.
func jsonBytes(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(text)
}

func child(message object, name string) object {
	inner, _ := message[name].(object)
	return inner
}

func word(message object, name string) string {
	text, _ := message[name].(string)
	return text
}
