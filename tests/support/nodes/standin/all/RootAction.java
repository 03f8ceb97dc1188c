package standin;

import java.io.IOException;
import java.util.List;
import java.util.concurrent.Executor;
import org.elasticsearch.Build;
import org.elasticsearch.action.ActionListener;
import org.elasticsearch.action.ActionRequest;
import org.elasticsearch.action.ActionRequestValidationException;
import org.elasticsearch.action.ActionResponse;
import org.elasticsearch.action.ActionType;
import org.elasticsearch.action.support.ActionFilters;
import org.elasticsearch.action.support.HandledTransportAction;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.cluster.service.ClusterService;
import org.elasticsearch.common.io.stream.StreamInput;
import org.elasticsearch.common.io.stream.StreamOutput;
import org.elasticsearch.injection.guice.Inject;
import org.elasticsearch.rest.BaseRestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.action.RestToXContentListener;
import org.elasticsearch.tasks.Task;
import org.elasticsearch.transport.TransportService;
import org.elasticsearch.xcontent.ToXContentObject;
import org.elasticsearch.xcontent.XContentBuilder;

/** `GET /`, which asks for the right `cluster:monitor/main`. */
final class RootAction extends BaseRestHandler {
    static final ActionType<Answer> TYPE = new ActionType<>("cluster:monitor/main");

    @Override
    public String getName() {
        return "root";
    }

    @Override
    public List<Route> routes() {
        return List.of(new Route(RestRequest.Method.GET, "/"), new Route(RestRequest.Method.HEAD, "/"));
    }

    @Override
    protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) {
        return channel -> client.execute(TYPE, new Question(), new RestToXContentListener<>(channel));
    }

    /** Has no content. */
    public static final class Question extends ActionRequest {
        Question() {}

        Question(StreamInput input) throws IOException {
            super(input);
        }

        @Override
        public ActionRequestValidationException validate() {
            return null;
        }
    }

    /** What the node says of itself. */
    public static final class Answer extends ActionResponse implements ToXContentObject {
        private final String node;
        private final String cluster;
        private final String uuid;

        Answer(String node, String cluster, String uuid) {
            this.node = node;
            this.cluster = cluster;
            this.uuid = uuid;
        }

        @Override
        public void writeTo(StreamOutput output) {
            throw new AssertionError("it stays on its node");
        }

        @Override
        public XContentBuilder toXContent(XContentBuilder builder, Params parameters) throws IOException {
            Build build = Build.current();
            builder.startObject().field("name", node).field("cluster_name", cluster).field("cluster_uuid", uuid);
            builder.startObject("version").field("number", build.version()).field("build_flavor", build.flavor());
            builder.field("build_type", build.type().displayName()).field("build_hash", build.hash()).endObject();
            return builder.field("tagline", "You Know, for Search").endObject();
        }
    }

    /** Answers on the node that is asked. */
    public static final class Transport extends HandledTransportAction<Question, Answer> {
        private final ClusterService cluster;

        @Inject
        public Transport(TransportService transport, ActionFilters filters, ClusterService cluster) {
            super(TYPE.name(), transport, filters, Question::new, (Executor) Runnable::run);
            this.cluster = cluster;
        }

        @Override
        protected void doExecute(Task task, Question question, ActionListener<Answer> listener) {
            String uuid = cluster.state().metadata().clusterUUID();
            listener.onResponse(new Answer(cluster.getNodeName(), cluster.getClusterName().value(), uuid));
        }
    }
}
