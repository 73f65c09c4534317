//! What administrators ask of groups, at every version.

use broker::api::{delete_groups, describe_groups, list_groups, offset_delete};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetDeleteRequest,
};

use super::other_apis::version;
use super::{Client, topic_name};

pub async fn list_and_delete(client: &mut Client, round: i16, id: &GroupId, topic: &str) {
    let v = version(round, &list_groups::VERSIONS);
    let listed = client.call(v, &ListGroupsRequest::default()).await;
    assert_eq!(listed.error_code, 0, "ListGroups v{v}");
    let mut groups = listed.groups.iter();
    let listed = groups.find(|group| group.group_id == *id);
    let listed = listed.expect("the group is listed");
    assert_eq!(&*listed.protocol_type, "consumer", "ListGroups v{v}");
    if v >= 4 {
        assert_eq!(&*listed.group_state, "Empty", "ListGroups v{v}");
    }
    if v >= 5 {
        assert_eq!(&*listed.group_type, "classic", "ListGroups v{v}");
    }

    let v = version(round, &describe_groups::VERSIONS);
    let request = DescribeGroupsRequest::default().with_groups(vec![id.clone()]);
    let described = client.call(v, &request).await.groups.remove(0);
    assert_eq!(described.error_code, 0, "DescribeGroups v{v}");
    assert_eq!(&*described.group_state, "Empty", "DescribeGroups v{v}");
    assert_eq!(described.authorized_operations, i32::MIN);

    let v = version(round, &offset_delete::VERSIONS);
    let offsets = OffsetDeleteRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
    let request = OffsetDeleteRequest::default()
        .with_group_id(id.clone())
        .with_topics(vec![offsets]);
    let deleted = client.call(v, &request).await;
    assert_eq!(deleted.error_code, 0, "OffsetDelete v{v}");
    assert_eq!(deleted.topics[0].partitions[0].error_code, 0);

    let v = version(round, &delete_groups::VERSIONS);
    let request = DeleteGroupsRequest::default().with_groups_names(vec![id.clone()]);
    let deleted = client.call(v, &request).await.results.remove(0);
    assert_eq!(deleted.error_code, 0, "DeleteGroups v{v}");
}
