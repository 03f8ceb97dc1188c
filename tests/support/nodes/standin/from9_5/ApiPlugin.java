package standin;

import java.util.Collection;
import java.util.List;
import java.util.function.Predicate;
import java.util.function.Supplier;
import org.elasticsearch.cluster.node.DiscoveryNodes;
import org.elasticsearch.features.NodeFeature;
import org.elasticsearch.plugins.ActionPlugin;
import org.elasticsearch.plugins.Plugin;
import org.elasticsearch.rest.RestHandler;

/** What a plugin overrides differently from version to version: here from 9.5 on. */
abstract class ApiPlugin extends Plugin implements ActionPlugin {
    @Override
    public Collection<ActionHandler> getActions() {
        return List.of(new ActionHandler(RootAction.TYPE, RootAction.Transport.class));
    }

    @Override
    public Collection<RestHandler> getRestHandlers(
            RestHandlersServices services, Supplier<DiscoveryNodes> nodes, Predicate<NodeFeature> features) {
        return List.of(new RootAction());
    }
}
